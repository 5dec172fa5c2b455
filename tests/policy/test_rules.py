"""A policy file decides calls by its rules, and an invalid one is refused with its line."""

from pathlib import Path

import pytest

from graph.permissions.gatekeeper import Gatekeeper
from policy.globs import matches_any_case, matches_glob
from policy.grants import Grant, create_grant, propose_pattern

RULES_HEADER = "default: ask\nrules:\n"
MAKE_ARGUMENTS = {"command": "make"}


def load_policy(tmp_path: Path, text: str) -> Gatekeeper:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    return Gatekeeper(file)


def decide_call(gate: Gatekeeper, agent: str, tool: str, **arguments: object) -> tuple[str, str]:
    verdict = gate.evaluate_call(agent, tool, arguments)
    return verdict.decision, verdict.rule


def test_first_matching_rule_decides(tmp_path: Path) -> None:
    gate = load_policy(
        tmp_path,
        RULES_HEADER
        + """
  - {id: no.secrets, tools: ["*_file"], paths: ["secrets/**", "*.pem"], decision: deny, reason: Not these.}
  - {id: coder.docs, agents: [coder], tools: [write_*], paths: ["docs/**"], decision: allow, reason: Docs are free.}
  - {id: reads, tools: [read_file], decision: allow, reason: Reading is free.}
""",
    )
    assert decide_call(gate, "coder", "write_file", path="docs/a/b.py", content="x") == ("allow", "coder.docs")
    assert decide_call(gate, "universal", "write_file", path="docs/a.py", content="x") == ("ask", "unknown")
    assert decide_call(gate, "coder", "write_file", path="Docs/a.py", content="x") == ("ask", "unknown")
    assert decide_call(gate, "coder", "write_file", path="./docs//a.py", content="x") == ("allow", "coder.docs")
    assert decide_call(gate, "coder", "write_file", path="docs/SECRETS.PEM", content="x") == ("deny", "no.secrets")
    assert decide_call(gate, "ask", "read_file", path="Secrets/a") == ("deny", "no.secrets")
    assert decide_call(gate, "ask", "read_file", path="a") == ("allow", "reads")
    assert decide_call(gate, "ask", "list_files") == ("ask", "unknown")


def test_missing_path_matches_as_the_workspace(tmp_path: Path) -> None:
    gate = load_policy(tmp_path, RULES_HEADER + "  - {id: never, paths: ['**'], decision: deny, reason: No.}\n")
    assert (
        decide_call(gate, "coder", "list_files")
        == decide_call(gate, "coder", "list_files", path=".")
        == ("deny", "never")
    )
    assert decide_call(gate, "coder", "search_in_code", query="x") == ("deny", "never")


def test_no_rule_extends_the_limits_of_an_agent(tmp_path: Path) -> None:
    gate = load_policy(tmp_path, "rules:\n  - {id: all, decision: allow, reason: All is free.}\n")
    assert decide_call(gate, "architect", "write_file", path="a.py", content="x") == ("deny", "agent.may_write")
    assert decide_call(gate, "ask", "execute_command", command="ls") == ("deny", "agent.tool")
    assert decide_call(gate, "coder", "write_file", path="../a", content="x") == ("deny", "path.outside")
    assert decide_call(gate, "coder", "execute_command", command="make", cwd="../..") == ("ask", "path.cwd")
    assert decide_call(gate, "debug", "execute_command", command="make") == ("ask", "agent.read_only_commands")
    assert decide_call(gate, "debug", "execute_command", command="git status") == ("ask", "agent.read_only_commands")
    assert decide_call(gate, "coder", "execute_command", command="make") == ("allow", "all")


def test_disabled_approvals_keep_denials_and_the_debug_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (
        "enabled: false\nrules:\n  - {id: w, tools: [write_file, execute_command], decision: ask, reason: It asks.}\n"
    )
    gate = load_policy(tmp_path, text)
    assert "APPROVAL IS OFF" in caplog.text
    assert decide_call(gate, "coder", "write_file", path="a", content="x") == ("allow", "approval.off")
    assert decide_call(gate, "coder", "write_file", path="../a", content="x") == ("deny", "path.outside")
    assert decide_call(gate, "coder", "echo", text="x") == ("deny", "unknown")
    assert decide_call(gate, "debug", "execute_command", command="make") == ("ask", "agent.read_only_commands")


def test_git_read_can_be_allowed(tmp_path: Path) -> None:
    gate = load_policy(tmp_path, "git_read: allow\ndefault: ask\nrules: []\n")
    assert decide_call(gate, "coder", "execute_command", command="git status") == ("allow", "command.git_read")
    assert decide_call(gate, "coder", "execute_command", command="git push") == ("ask", "unknown")
    gate = load_policy(tmp_path, "git_read: allow\nrules:\n  - {id: never, decision: deny, reason: Never.}\n")
    assert decide_call(gate, "coder", "execute_command", command="git status") == ("deny", "never")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: it is empty"),
        ("rules: [", ":1: it is not valid YAML"),
        ("rules:\n  - id: x\n\tdecision: ask", ":3: it is not valid YAML"),
        ("- a", ":1: : Input should be a valid dictionary"),
        ("rules: []\nrule: []", ":2: rule: Extra inputs are not permitted"),
        ("default: maybe\nrules: []", ":1: default: Input should be 'allow', 'ask' or 'deny'"),
        ("enabled: 'no'\nrules: []", ":1: enabled: Input should be a valid boolean"),
        ("enabled: true\nenabled: false\nrules: []", ":2: 'enabled' occurs twice"),
        (RULES_HEADER + "  - id: x\n    decision: ask", ":3: rules.0.reason: Field required"),
        (RULES_HEADER + "  - id: X Y\n    decision: ask\n    reason: r", ":3: rules.0.id: String should match"),
        (
            RULES_HEADER + "  - id: x\n    tools: [writ_file]\n    decision: ask\n    reason: r",
            ":4: 'writ_file' is not one of the tools",
        ),
        (
            RULES_HEADER + "  - id: x\n    agents:\n    - cod\n    decision: ask\n    reason: r",
            ":5: 'cod' is not one of the agents",
        ),
        (
            RULES_HEADER + "  - id: x\n    commands: [safe]\n    decision: ask\n    reason: r",
            ":4: rules.0.commands.0: Input should be",
        ),
        (
            RULES_HEADER + "  - id: x\n    tools: []\n    decision: ask\n    reason: r",
            ":4: rules.0.tools: List should have at least",
        ),
        (RULES_HEADER + "  - {id: grant.x, decision: ask, reason: r}", ":3: the id 'grant.x' is taken"),
        (RULES_HEADER + "  - {id: x, decision: ask, reason: r}\n" * 2, ":4: the id 'x' is taken; choose another"),
        ("rules: &a [*a]", ":1: aliases are not allowed; write the value out"),
        ("enabled: !!bool maybe\nrules: []", ":1: it is nested too deeply, or holds a value that YAML cannot build"),
        ("? [a, b]\n: c\nrules: []", ":1: it is nested too deeply, or holds a value that YAML cannot build"),
        (
            RULES_HEADER + "  - {id: x, tools: [echo], paths: [a], decision: ask, reason: r}",
            ":3: none of the rule's tools has paths",
        ),
        (
            RULES_HEADER + "  - {id: x, tools: [echo], commands: [git_read], decision: ask, reason: r}",
            ":3: none of the rule's",
        ),
        (
            RULES_HEADER + "  - {id: x, paths: [a], commands: [git_read], decision: ask, reason: r}",
            ":3: no call has both a path",
        ),
        ("#" + "\u0439" * 500_000 + "\nrules: []", ":1: it is larger than 1 MB"),
    ],
)
def test_invalid_policy_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"policy\.yaml:\d+: ") as refused:
        load_policy(tmp_path, text)
    assert str(refused.value).startswith(f"{tmp_path / 'policy.yaml'}{said}")


def test_missing_policy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: it cannot be read: .*No such file"):
        Gatekeeper(tmp_path / "none.yaml")


def test_invalid_policy_does_not_replace_a_valid_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate = load_policy(tmp_path, "default: allow\nrules: []\n")
    gate.path.write_text("default: nonsense\nrules: []\n")
    gate.reload()
    assert decide_call(gate, "coder", "execute_command", **MAKE_ARGUMENTS) == ("allow", "unknown")
    assert "policy.yaml:1: default: Input should be" in caplog.text
    gate.path.write_text("default: ask\nrules: []\n")
    gate.reload()
    assert decide_call(gate, "coder", "execute_command", **MAKE_ARGUMENTS) == ("ask", "unknown")


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
def test_globs_match_paths(path: str, glob: str, same: bool) -> None:
    assert matches_glob(path, glob) is same


def test_equivalent_file_names_match() -> None:
    assert matches_any_case("SECRET/ＫＥＹ.pem", "secret/key.PEM")
    assert matches_any_case("cafe\u0301/a", "café/**")
    assert matches_any_case(".github/workflows/\u2105.yml", ".github/workflows/*")
    assert matches_any_case("\u00df.pem", "?.pem")


def make_grant(pattern: str, **more: object) -> Grant:
    return Grant("g", "coder", "execute_command", pattern, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "command", "covered"),
    [
        ("npm test", "npm test", True),
        ("npm test", "npm test --watch", False),
        ("npm test", "npm test; rm -rf .", False),
        ("npm run *", "npm run build fast", True),
        ("npm run *", "npm run build --prod", False),
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
def test_grant_covers_matching_commands(pattern: str, command: str, covered: bool) -> None:
    assert make_grant(pattern).covers("coder", "execute_command", {"command": command}) is covered


def test_grant_is_bound_to_agent_tool_folder_and_shell() -> None:
    assert not make_grant("make").covers("universal", "execute_command", MAKE_ARGUMENTS)
    assert not make_grant("make").covers("coder", "write_file", {"path": "make"})
    assert not make_grant("make").covers("coder", "execute_command", {**MAKE_ARGUMENTS, "cwd": "sub"})
    assert not make_grant("make").covers("coder", "execute_command", {**MAKE_ARGUMENTS, "shell": True})
    assert make_grant("make", cwd="sub", shell=True).covers(
        "coder", "execute_command", {**MAKE_ARGUMENTS, "cwd": "sub", "shell": True}
    )


def test_narrowest_grant_is_the_call_itself() -> None:
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
    assert propose_pattern("execute_command", MAKE_ARGUMENTS) == "make"
    assert propose_pattern("echo", {"text": "x"}) is None
    assert create_grant("coder", "write_file", {"path": "src/a.py"}, "src/**", uses_left=2).uses_left == 2


@pytest.mark.parametrize(
    ("tool", "arguments", "pattern", "said"),
    [
        ("echo", {"text": "x"}, None, "cannot be remembered"),
        ("write_file", {"path": "a.py"}, "docs/**", "does not match the call"),
        ("execute_command", MAKE_ARGUMENTS, "make test", "does not match the call"),
        ("execute_command", MAKE_ARGUMENTS, "*", "must name the program"),
        ("execute_command", MAKE_ARGUMENTS, "m[a]ke", "must name the program"),
    ],
)
def test_invalid_grant_is_refused(tool: str, arguments: dict[str, str], pattern: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        create_grant("coder", tool, arguments, pattern)


@pytest.mark.parametrize(
    "command", ["python a.py", "python3.12 -m x", "bash a.sh", "npx tool", "sed -i s/a/b/ x", "ssh a"]
)
def test_interpreter_is_granted_without_a_pattern_only(command: str) -> None:
    program = command.split()[0]
    with pytest.raises(ValueError, match="runs other programs"):
        create_grant("coder", "execute_command", {"command": command}, f"{program} *")
    assert create_grant("coder", "execute_command", {"command": command}, None).is_exact


@pytest.mark.parametrize(
    "word",
    ["-o/etc/x", "--output=/x", "a/../../b", "--x=../y", "~/a", "a;b", "$(x)", "--config=.git/config", "C:/x", "-I~"],
)
def test_granted_pattern_never_covers_a_word_that_leads_out(word: str) -> None:
    assert not make_grant("tool *").covers("coder", "execute_command", {"command": f"tool {word}"})
