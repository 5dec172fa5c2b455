"""Commands are recognized as reading only: two corpora, written without knowledge of the table, and hostile input."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.commands import CommandClass, classify_command
from policy.globs import matches_glob
from policy.grants import Grant
from policy.paths import find_path_error
from policy.patterns import find_pattern_error
from tests.support.corpus import load_lines, read_lines
from tests.support.properties import search_settings

READ_ONLY_COMMANDS = read_lines("read_only_commands.txt")
HARMLESS_BUT_UNPROVEN = {
    "cat my\\ file.txt",
    'stat -f "%z" README.md',
    *("date -r README.md", "date -d 'yesterday' +%F", "diff -r src tests", "diff -rq src tests"),
    'xxd "my file.txt" | head -5',
    *("rg TODO", "rg -g '*.py' \"def \"", 'rg -tjs -n "function"', 'rg "fn\\s+\\w+" --type rust'),
    *("ps -ef", "ps -ef | grep -v grep | grep python", "ps -eo pid,ppid,cmd"),
}
"""Harmless, and not proven: a backslash outside of quotes; options that mean other things elsewhere; `xxd IN OUT`;
ripgrep without a folder, which reads its input if it has one; `-e` of ps, which shows the environment of programs on
BSD."""
NEIGHBOURS = [
    *("sed 's/[^a]/x/' f", "sed 's/[.]/x/' f", "sed -n '/x/,/y/p' f", "sed 's/[^^]/x/' f", "sed -n '5,10p' f"),
    *("sed 's/foo/bar/g; s/baz/qux/g' f", "sed -E 's/(a+)b/\\1/' f", "sed -e 's|a|b|' -e 5q f"),
    *("printf '%5.2f\\n' 3.14", "printf '%s=%d\\n' a 1 b 2", "printf '100%%\\n'", "printf '%-20s|\\n' name"),
    *("awk '{sum[$1]+=$2} END {for (k in sum) print k, sum[k]}' f", "awk '{$1=\"\"; print}' f"),
    *("awk '{s+=$1} END{print s/NR}' f", "awk '$1 ~ /^a{2,3}$/' f", "awk '{$NF=\"x\"} 1' f"),
    *("jq '.a.b[0]' f", "jq '{name: .name, n: (.items | length)}' f", "jq -r '.[] | \"\\(.a)-\\(.b)\"' f"),
    *("grep -E 'a{1,3}' f", "grep -P '^a+$' f", "grep -rn foo src", "cat f | sort -", "cat f | tr a b", "ps aux"),
    *("seq 1 100", "seq 0.5 0.5 10", "seq -f %03g 1 9", "find . -name '*.py' -printf '%p %s\\n'", "nl -w 4 f"),
    *("tail -n 5 f | cut -f1", "sha256sum f | cut -c1-8", "diff -r --no-dereference a b", "ls -R src", "ls -L src"),
    *("grep '^x' f", "cat 'a#b'", "sort -m a b", "find . -type f | wc -l", "cat f | sort -rn | head -5"),
    *("seq 10 -1 1", "awk 1 n=5 f", "awk 1 ./src/*.py", "cat f | tr -d '\\000-\\037'"),
    *("date +%Y%m%d", "ls --time-style=+%H:%M", "stat -c '%n %s' f", "expand -t 4 f", "echo 50% done", "cut -f1,3-5 f"),
]
"""Ordinary commands beside those of the attacks."""
ASKED_SHARE = 0.03


@pytest.mark.parametrize("command", READ_ONLY_COMMANDS)
def test_read_only_command_is_recognized(command: str) -> None:
    kind = classify_command({"command": command}).kind
    assert (kind is CommandClass.READ_ONLY) == (command not in HARMLESS_BUT_UNPROVEN)


@pytest.mark.parametrize("command", [*NEIGHBOURS, *load_lines("growth_neighbours.txt")])
def test_neighbour_of_an_attack_is_recognized(command: str) -> None:
    assert classify_command({"command": command}) == (CommandClass.READ_ONLY, "")


def test_few_ordinary_commands_are_asked_for() -> None:
    assert len(HARMLESS_BUT_UNPROVEN) <= ASKED_SHARE * len(READ_ONLY_COMMANDS)


@pytest.mark.parametrize("command", load_lines("unproven_commands.txt"), ids=lambda command: ascii(command[:60]))
def test_unproven_command_is_not_read_only(command: str) -> None:
    assert classify_command({"command": command}).kind is not CommandClass.READ_ONLY


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"command": "ls", "shell": True}, "it requests a shell"),
        ({"command": "ls", "cwd": "../.."}, "its folder may be outside the workspace: '..' could leave the workspace"),
        ({"command": ["ls"]}, "it is empty"),
        ({"command": None}, "it is empty"),
        ({}, "it is empty"),
        ({"command": "make test"}, "'make' is not a program that is known to only read"),
        ({"command": "cat a > b"}, "it holds a redirection"),
        ({"command": "cat $HOME/a"}, "it holds a variable or a substitution"),
        ({"command": "ls & rm a"}, "it holds a command in the background"),
        ({"command": "ls\nrm a"}, "it holds a line break or a character that cannot be seen"),
        ({"command": "sort -o b a"}, "the option '-o' is not known"),
        ({"command": "ls" + " a" * 3000}, "it is longer than 1024 bytes"),
        ({"command": "ls|" * 25 + "ls"}, "it is a chain of too many commands"),
        ({"command": "sed -n 1,5p a | grep -i b"}, "a client that uses no shell would give all of it to sed"),
    ],
)
def test_unproven_command_has_a_reason(arguments: dict[str, object], why: str) -> None:
    assert classify_command(arguments) == (CommandClass.UNPROVEN, why)


@pytest.mark.parametrize(
    "command", ["git status", "git log --oneline -5 | head", "git diff HEAD~1 -- src/a.py", "ls && git show HEAD:a.py"]
)
def test_git_read_is_recognized(command: str) -> None:
    assert classify_command({"command": command}).kind is CommandClass.GIT_READ


@pytest.mark.parametrize(
    "command",
    [
        "git diff --output=x",
        "git diff --out=x",
        "git -c core.pager=sh log",
        "git -C .. log",
        "git log --ext-diff",
        "git branch new",
        "git diff ../x",
        "git show HEAD:../x",
        "git grep -O x",
        "git stash",
        "git log | grep -o x",
        "git status > x",
    ],
)
def test_other_git_command_is_unproven(command: str) -> None:
    assert classify_command({"command": command}).kind is CommandClass.UNPROVEN


SCRATCH_FILES = {
    "README.md": "# Title\n\nSome text with TODO and an error.\n",
    "a.txt": "a\nb\nc 1 2\n",
    "b.txt": "a\nc\nd 3 4\n",
    "data.csv": "a,1,20\nb,2,5\n",
    "data.json": '[{"name": "a"}, {"name": "b"}]\n',
    "package.json": '{"name": "x", "version": "1.0.0", "scripts": {"test": "jest"}}\n',
    "Makefile": "test:\n\techo test\n",
    "src/main.py": "import os\n\n\ndef main() -> None:\n    print('hi')\n",
    "src/app.js": "import x from 'express'\n",
    "src/utils/helpers.py": "def help():\n    pass\n",
    "tests/test_main.py": "def test_main():\n    assert True\n",
    "docs/guide.md": "# Guide\n",
    "docs/api/index.md": "# API\n",
    "log.txt": "2026-01-01 ERROR one\n2026-01-02 WARN two\n",
    "my file.txt": "spaced\n",
    ".env.example": "PORT=1\n",
    ".github/workflows/ci.yml": "on: push\n",
    ".gitignore": "data/\n",
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("around") / "scratch"
    folder.mkdir()
    for name, content in SCRATCH_FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def snapshot_folder(folder: Path) -> list[tuple[str, int, int, str]]:
    found = []
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found.append((str(path), status.st_mode, status.st_mtime_ns, content))
    return found


def split_naively(command: str) -> list[str]:
    """Split a command as a client does that knows no shell and no operators."""
    words, word, quoted, begun = [], "", False, False
    for char in command:
        if char in "'\"":
            quoted, begun = not quoted, True
        elif char.isspace() and not quoted:
            words += [word] if begun else []
            word, begun = "", False
        else:
            word, begun = word + char, True
    return words + ([word] if begun else [])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash"), reason="bash is what reads the commands here")
def test_corpus_commands_change_no_file(scratch: Path) -> None:
    before = snapshot_folder(scratch.parent)
    environment = {"PATH": os.environ["PATH"], "HOME": str(scratch)}
    for command in READ_ONLY_COMMANDS:
        for argv in (["bash", "-c", command], split_naively(command)):
            if shutil.which(argv[0]):
                subprocess.run(
                    argv, cwd=scratch, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=30
                )
        assert snapshot_folder(scratch.parent) == before, command


COMMAND_PIECES = st.sampled_from(
    [
        *" \t\n;&|<>(){}[]$`'\"\\!*?~#=-/.",
        "..",
        "&&",
        "||",
        "ls ",
        "cat a",
        "find . ",
        "sed -n ",
        "awk ",
        "git ",
        "-f",
        "é",
        "\u202e",
    ]
)


@search_settings(400)
@given(st.one_of(st.text(max_size=300), st.lists(COMMAND_PIECES, max_size=120).map("".join)))
def test_any_text_can_be_classified(text: str) -> None:
    assert classify_command({"command": text, "cwd": text[:20] or None}).kind in CommandClass
    assert isinstance(find_path_error(text), str | None)
    assert isinstance(find_pattern_error(text), str | None)
    matches_glob(text, text[::-1])
    Grant("g", "coder", "execute_command", text[::-1]).covers("coder", "execute_command", {"command": text})


@search_settings(300)
@given(
    st.sampled_from(READ_ONLY_COMMANDS),
    st.sampled_from(["; rm a", " > b", " && make", " | sh", "\nrm a", " `rm a`", " $(rm a)", " &"]),
)
def test_appended_code_makes_a_command_unproven(command: str, more: str) -> None:
    assert classify_command({"command": command + more}).kind is CommandClass.UNPROVEN
