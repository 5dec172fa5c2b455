"""The policy file: what it decides, and what is said of one that cannot be used."""

from pathlib import Path

import pytest

from graph.permissions.gatekeeper import Gatekeeper
from policy.globs import matches_any_case, matches_glob
from policy.grants import Grant, create_grant, propose_pattern

HEAD = "default: ask\nrules:\n"
MAKE = {"command": "make"}


def policy(tmp_path: Path, text: str) -> Gatekeeper:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    return Gatekeeper(file)


def decided(gate: Gatekeeper, agent: str, tool: str, **arguments: object) -> tuple[str, str]:
    verdict = gate.evaluate_call(agent, tool, arguments)
    return verdict.decision, verdict.rule


def test_the_first_rule_that_matches_decides(tmp_path: Path) -> None:
    gate = policy(
        tmp_path,
        HEAD
        + """
  - {id: no.secrets, tools: ["*_file"], paths: ["secrets/**", "*.pem"], decision: deny, reason: Not these.}
  - {id: coder.docs, agents: [coder], tools: [write_*], paths: ["docs/**"], decision: allow, reason: Docs are free.}
  - {id: reads, tools: [read_file], decision: allow, reason: Reading is free.}
""",
    )
    assert decided(gate, "coder", "write_file", path="docs/a/b.py", content="x") == ("allow", "coder.docs")
    assert decided(gate, "universal", "write_file", path="docs/a.py", content="x") == ("ask", "unknown")
    assert decided(gate, "coder", "write_file", path="Docs/a.py", content="x") == ("ask", "unknown")
    assert decided(gate, "coder", "write_file", path="./docs//a.py", content="x") == ("allow", "coder.docs")
    assert decided(gate, "coder", "write_file", path="docs/SECRETS.PEM", content="x") == ("deny", "no.secrets")
    assert decided(gate, "ask", "read_file", path="Secrets/a") == ("deny", "no.secrets")
    assert decided(gate, "ask", "read_file", path="a") == ("allow", "reads")
    assert decided(gate, "ask", "list_files") == ("ask", "unknown")


def test_a_path_that_is_left_out_is_the_workspace_to_the_rules(tmp_path: Path) -> None:
    gate = policy(tmp_path, HEAD + "  - {id: never, paths: ['**'], decision: deny, reason: No.}\n")
    assert decided(gate, "coder", "list_files") == decided(gate, "coder", "list_files", path=".") == ("deny", "never")
    assert decided(gate, "coder", "search_in_code", query="x") == ("deny", "never")


def test_no_rule_widens_what_an_agent_may_do(tmp_path: Path) -> None:
    gate = policy(tmp_path, "rules:\n  - {id: all, decision: allow, reason: All is free.}\n")
    assert decided(gate, "architect", "write_file", path="a.py", content="x") == ("deny", "agent.may_write")
    assert decided(gate, "ask", "execute_command", command="ls") == ("deny", "agent.tool")
    assert decided(gate, "coder", "write_file", path="../a", content="x") == ("deny", "path.outside")
    assert decided(gate, "coder", "execute_command", command="make", cwd="../..") == ("ask", "path.cwd")
    assert decided(gate, "debug", "execute_command", command="make") == ("ask", "agent.read_only_commands")
    assert decided(gate, "debug", "execute_command", command="git status") == ("ask", "agent.read_only_commands")
    assert decided(gate, "coder", "execute_command", command="make") == ("allow", "all")


def test_without_approvals_denials_stay_and_debug_still_asks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (
        "enabled: false\nrules:\n  - {id: w, tools: [write_file, execute_command], decision: ask, reason: It asks.}\n"
    )
    gate = policy(tmp_path, text)
    assert "APPROVAL IS OFF" in caplog.text
    assert decided(gate, "coder", "write_file", path="a", content="x") == ("allow", "approval.off")
    assert decided(gate, "coder", "write_file", path="../a", content="x") == ("deny", "path.outside")
    assert decided(gate, "coder", "echo", text="x") == ("deny", "unknown")
    assert decided(gate, "debug", "execute_command", command="make") == ("ask", "agent.read_only_commands")


def test_the_reads_of_git_have_a_switch(tmp_path: Path) -> None:
    gate = policy(tmp_path, "git_read: allow\ndefault: ask\nrules: []\n")
    assert decided(gate, "coder", "execute_command", command="git status") == ("allow", "command.git_read")
    assert decided(gate, "coder", "execute_command", command="git push") == ("ask", "unknown")
    gate = policy(tmp_path, "git_read: allow\nrules:\n  - {id: never, decision: deny, reason: Never.}\n")
    assert decided(gate, "coder", "execute_command", command="git status") == ("deny", "never")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: it is empty"),
        ("rules: [", ":1: it is no YAML"),
        ("rules:\n  - id: x\n\tdecision: ask", ":3: it is no YAML"),
        ("- a", ":1: : Input should be a valid dictionary"),
        ("rules: []\nrule: []", ":2: rule: Extra inputs are not permitted"),
        ("default: maybe\nrules: []", ":1: default: Input should be 'allow', 'ask' or 'deny'"),
        ("enabled: 'no'\nrules: []", ":1: enabled: Input should be a valid boolean"),
        ("enabled: true\nenabled: false\nrules: []", ":2: 'enabled' stands there twice"),
        (HEAD + "  - id: x\n    decision: ask", ":3: rules.0.reason: Field required"),
        (HEAD + "  - id: X Y\n    decision: ask\n    reason: r", ":3: rules.0.id: String should match"),
        (
            HEAD + "  - id: x\n    tools: [writ_file]\n    decision: ask\n    reason: r",
            ":4: 'writ_file' is none of the tools",
        ),
        (
            HEAD + "  - id: x\n    agents:\n    - cod\n    decision: ask\n    reason: r",
            ":5: 'cod' is none of the agents",
        ),
        (
            HEAD + "  - id: x\n    commands: [safe]\n    decision: ask\n    reason: r",
            ":4: rules.0.commands.0: Input should be",
        ),
        (
            HEAD + "  - id: x\n    tools: []\n    decision: ask\n    reason: r",
            ":4: rules.0.tools: List should have at least",
        ),
        (HEAD + "  - {id: grant.x, decision: ask, reason: r}", ":3: the id 'grant.x' is taken"),
        (HEAD + "  - {id: x, decision: ask, reason: r}\n" * 2, ":4: the id 'x' is taken; choose another"),
        ("rules: &a [*a]", ":1: aliases are not taken; write it out"),
        ("enabled: !!bool maybe\nrules: []", ":1: it is nested too deep, or holds what YAML cannot make a value of"),
        ("? [a, b]\n: c\nrules: []", ":1: it is nested too deep, or holds what YAML cannot make a value of"),
        (
            HEAD + "  - {id: x, tools: [echo], paths: [a], decision: ask, reason: r}",
            ":3: none of the rule's tools has paths",
        ),
        (HEAD + "  - {id: x, tools: [echo], commands: [git_read], decision: ask, reason: r}", ":3: none of the rule's"),
        (
            HEAD + "  - {id: x, paths: [a], commands: [git_read], decision: ask, reason: r}",
            ":3: no call has both a path",
        ),
        ("#" + "\u0439" * 500_000 + "\nrules: []", ":1: it is larger than 1 MB"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"policy\.yaml:\d+: ") as refused:
        policy(tmp_path, text)
    assert str(refused.value).startswith(f"{tmp_path / 'policy.yaml'}{said}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: it cannot be read: .*No such file"):
        Gatekeeper(tmp_path / "none.yaml")


def test_a_wrong_file_does_not_take_the_place_of_a_good_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate = policy(tmp_path, "default: allow\nrules: []\n")
    gate.path.write_text("default: nonsense\nrules: []\n")
    gate.reload()
    assert decided(gate, "coder", "execute_command", **MAKE) == ("allow", "unknown")
    assert "policy.yaml:1: default: Input should be" in caplog.text
    gate.path.write_text("default: ask\nrules: []\n")
    gate.reload()
    assert decided(gate, "coder", "execute_command", **MAKE) == ("ask", "unknown")


@pytest.mark.parametrize(
    ("path", "glob", "same"),
    [
        ("a.py", "*.py", True),
        ("src/a.py", "*.py", True),
        ("src/a.py", "src/*.py", True),
        ("src/b/a.py", "src/*.py", False),
        ("src/b/a.py", "src/**", True),
        ("src", "src/**", True),
        ("src/b/c/a.py", "src/**/a.py", True),
        ("src/a.py", "src/**/a.py", True),
        ("x/src/a.py", "src/**", False),
        ("x/src/a.py", "**/src/**", True),
        ("./src//a.py", "src/a.py", True),
        ("A.py", "a.py", False),
        ("a" * 200, "*a" * 60 + "b", False),
    ],
)
def test_globs(path: str, glob: str, same: bool) -> None:
    assert matches_glob(path, glob) is same


def test_names_that_a_file_system_takes_for_one() -> None:
    assert matches_any_case("SECRET/ＫＥＹ.pem", "secret/key.PEM")
    assert matches_any_case("cafe\u0301/a", "café/**")
    assert matches_any_case(".github/workflows/\u2105.yml", ".github/workflows/*")
    assert matches_any_case("\u00df.pem", "?.pem")


def granted(pattern: str, **more: object) -> Grant:
    return Grant("g", "coder", "execute_command", pattern, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "command", "covered"),
    [
        ("npm test", "npm test", True),
        ("npm test", "npm test --watch", False),
        ("npm test", "npm test; rm -rf .", False),
        ("npm run *", "npm run build --prod", True),
        ("npm run *", "npm run", True),
        ("npm run *", "npm run build && rm a", False),
        ("npm run *", "npm run build > a", False),
        ("npm run *", "npm run $(rm a)", False),
        ("npm run *", "npm run ../x", False),
        ("npm run *", "npm run /etc/x", False),
        ("npm run *", "npm exec x", False),
        ("npm run *", "npm run 'a\" b'", False),
        ("pytest tests/*", "pytest tests/a.py", True),
        ("pytest tests/*", "pytest tests/a.py -x", False),
        ("make *", "make -C../x", False),
        ("make *", "make -f/etc/x", False),
        ("make a > b", "make a > b", False),
    ],
)
def test_what_a_granted_command_covers(pattern: str, command: str, covered: bool) -> None:
    assert granted(pattern).covers("coder", "execute_command", {"command": command}) is covered


def test_a_grant_is_for_its_agent_its_tool_its_folder_and_its_way_of_running() -> None:
    assert not granted("make").covers("universal", "execute_command", MAKE)
    assert not granted("make").covers("coder", "write_file", {"path": "make"})
    assert not granted("make").covers("coder", "execute_command", {**MAKE, "cwd": "sub"})
    assert not granted("make").covers("coder", "execute_command", {**MAKE, "shell": True})
    assert granted("make", cwd="sub", shell=True).covers(
        "coder", "execute_command", {**MAKE, "cwd": "sub", "shell": True}
    )


def test_the_narrowest_grant_is_the_call_itself_and_no_glob() -> None:
    commands = {"rm *": "rm -rf src", "make a > b": "make c > b", "* *": "make install"}
    for command, other in commands.items():
        narrow = create_grant("coder", "execute_command", {"command": command}, None)
        assert narrow.covers("coder", "execute_command", {"command": command})
        assert not narrow.covers("coder", "execute_command", {"command": other})
    file = create_grant("coder", "write_file", {"path": "./config.py"}, "config.py")
    assert file.covers("coder", "write_file", {"path": "config.py"})
    assert not file.covers("coder", "write_file", {"path": "app/secrets/config.py"})
    assert create_grant("coder", "write_file", {"path": "a/b.md"}, "**/*.md").covers(
        "coder", "write_file", {"path": "c.md"}
    )


def test_the_proposal_is_the_call_itself() -> None:
    assert propose_pattern("write_file", {"path": "./src//a.py", "content": "x"}) == "src/a.py"
    assert propose_pattern("execute_command", MAKE) == "make"
    assert propose_pattern("echo", {"text": "x"}) is None
    assert create_grant("coder", "write_file", {"path": "src/a.py"}, "src/**", uses_left=2).uses_left == 2


@pytest.mark.parametrize(
    ("tool", "arguments", "pattern", "said"),
    [
        ("echo", {"text": "x"}, None, "cannot be remembered"),
        ("write_file", {"path": "a.py"}, "docs/**", "does not match the call"),
        ("execute_command", MAKE, "make test", "does not match the call"),
        ("execute_command", MAKE, "*", "must name the program"),
        ("execute_command", MAKE, "m[a]ke", "must name the program"),
    ],
)
def test_a_grant_that_cannot_be(tool: str, arguments: dict[str, str], pattern: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        create_grant("coder", tool, arguments, pattern)
