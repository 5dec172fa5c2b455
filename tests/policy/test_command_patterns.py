"""Patterns for the words of a command: what they cover, and those that no grant may have."""

import pytest

from policy.grants import Grant, create_grant


def covers(pattern: str, command: str) -> bool:
    return Grant("g", "coder", "execute_command", pattern).covers("coder", "execute_command", {"command": command})


@pytest.mark.parametrize(
    "word",
    ["src/a.py", "a-b_c.1", "src", "a::b", "a.py::TestB::test_c", "'tests/a.py::test_b[x-1]'", "a,b"],
)
def test_wildcard_covers_an_ordinary_word(word: str) -> None:
    assert covers("tool *", f"tool {word}")


@pytest.mark.parametrize(
    "word",
    [
        "-v",
        "-pevil",
        "-p",
        "--",
        "-",
        "--name=a",
        "--out=build/x",
        "-j4",
        "key=value",
        "+x",
        "@args.txt",
        ".",
        "./",
        "-rf",
    ],
)
def test_wildcard_covers_no_option_no_variable_and_not_the_workspace(word: str) -> None:
    assert not covers("tool *", f"tool {word}")
    assert not covers("tool *", f"tool a {word}")
    assert not covers("tool ?*", f"tool {word}")


@pytest.mark.parametrize(
    ("pattern", "command", "is_covered"),
    [
        *(("tool --name=*", "tool --name=a", True), ("tool --name=*", "tool --other=a", False)),
        *(("tool --name=*", "tool --name=../a", False), ("tool key=*", "tool key=a", True)),
        *(("tool key=*", "tool keys=a", False), ("tool -j*", "tool -j4", True), ("tool -j*", "tool -jx", False)),
        *(("tool -j*", "tool -x4", False), ("pytest -x *", "pytest -x a.py", True)),
        *(("pytest -x *", "pytest a.py -x", False), ("pytest *.py", "pytest -pevil.py", False)),
    ],
)
def test_option_is_covered_if_the_pattern_writes_it_out(pattern: str, command: str, is_covered: bool) -> None:
    assert covers(pattern, command) is is_covered


@pytest.mark.parametrize("pattern", ["tool -*", "tool --*", "tool --na*", "tool -?x", "tool [-]x", "tool @*"])
def test_pattern_with_a_wildcard_in_the_name_of_an_option_covers_no_option(pattern: str) -> None:
    assert not any(covers(pattern, f"tool {word}") for word in ("-x", "-xx", "--name", "--name=a", "@a", "-j4"))


RUNNERS = (
    "python a|python3.12 -m x|PYTHON3 a|python3.exe a|bash a.sh|rbash a|ash a|nu a|sh.exe a|bunx a|tsx a|ipython a"
    "|julia a|poetry run a|tox a|coverage run a|command rm|builtin eval|setsid a|stdbuf -o0 a|strace a|flock a b|tmux a"
    "|tar xf a|rsync a b|npx tool|sed -i s/a/b/ x|ssh a|env a|find a|uv run a|sqlite3 a|gcc-12 a.c|patch a|unzip a"
    "|npm exec a|npm x a|npm install a|yarn dlx a|cargo run a|go run a|go generate a|pip3 install a|git bisect run"
    "|git config a b|git submodule foreach a|git apply a|docker run a|kubectl exec a|make|less a|vim a"
)


@pytest.mark.parametrize("command", RUNNERS.split("|"))
def test_program_that_runs_programs_is_granted_without_a_pattern_only(command: str) -> None:
    words = command.split()
    patterns = {f"{words[0]} *", f"{' '.join(words[:2])} *", f"{' '.join(words[:-1])} *"}
    for pattern in patterns - {"make *", "npm *"} if command != "make" else {"make *"}:
        with pytest.raises(ValueError, match=r"runs other programs|Write out the command"):
            create_grant("coder", "execute_command", {"command": command}, pattern)
        assert not covers(pattern, command)
    assert create_grant("coder", "execute_command", {"command": command}, None).is_exact


@pytest.mark.parametrize(
    "program",
    ["git", "npm", "make", "pip", "pip3.12", "yarn", "cargo", "go", "gradle", "dotnet", "git.exe", "brew", "aws"],
)
def test_command_of_a_program_is_written_out(program: str) -> None:
    for pattern in (f"{program} *", f"{program} s*", f"{program} -C *", f"{program} -C a *", f"{program} -j*"):
        with pytest.raises(ValueError, match="Write out the command"):
            create_grant("coder", "execute_command", {"command": f"{program} status"}, pattern)
        assert not covers(pattern, f"{program} status")
    assert covers(f"{program} status *", f"{program} status a")


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            " python3 *",
            "tool\t*",
            "tool  *",
            "tool * ",
            "tool\u00a0*",
            "tool\u2003*",
            "tool\n*",
            "\ttool *",
            "tool\x0b*",
        )
    ],
)
def test_pattern_has_single_blanks(pattern: str) -> None:
    with pytest.raises(ValueError, match="single blanks"):
        create_grant("coder", "execute_command", {"command": "tool a"}, pattern)
    assert not covers(pattern, "tool a")
    assert not covers(pattern, "python3 a")


@pytest.mark.parametrize(
    ("pattern", "command"),
    [("git add *", "git add src/a.py b.py"), ("npm run *", "npm run build"), ("cargo test *", "cargo test a::b")],
)
def test_pattern_behind_a_written_command_covers_its_operands(pattern: str, command: str) -> None:
    assert create_grant("coder", "execute_command", {"command": command}, pattern).covers(
        "coder", "execute_command", {"command": command}
    )
