"""The gate judges every agent, every tool and every kind of argument by the table."""

from typing import Any

import pytest

from graph.permissions.gatekeeper import Gatekeeper, all_agents
from graph.tools.catalog import TOOLS
from prompts import AGENTS
from tests.support.corpus import load_lines

GATEKEEPER = Gatekeeper()


HARMLESS = {
    "read_file": {"path": "a.py"},
    "write_file": {"path": "notes/a.MD", "content": "x"},
    "list_files": {},
    "create_directory": {"path": "a.md"},
    "execute_command": {"command": "make"},
    "search_in_code": {"query": "x"},
    "echo": {"text": "x"},
    "calculator": {"expr": "1"},
    "switch_mode": {"mode": "ask"},
    "attempt_completion": {"result": "x"},
    "ask_followup_question": {"question": "x"},
}
OUTSIDE = {
    "read_file": {"path": "../a.py"},
    "write_file": {"path": "a.md/../../b.md", "content": "x"},
    "list_files": {"path": "/etc"},
    "create_directory": {"path": "C:\\a.md"},
    "search_in_code": {"query": "x", "path": "~/x"},
}
PATTERN_OUTSIDE = {"list_files": {"pattern": "../*"}, "search_in_code": {"query": "x", "file_pattern": "/etc/*"}}
REPOSITORY = {"read_file": {"path": ".git/config"}, "write_file": {"path": "a/.GIT/hooks/x.md", "content": "x"}}
READS = {"execute_command": {"command": "ls -la src | wc -l"}}
GIT_READS = {"execute_command": {"command": "git log --oneline -n 5"}}
SHELL = {"execute_command": {"command": "ls", "shell": True}}
ELSEWHERE = {"execute_command": {"command": "ls", "cwd": "../.."}}
NO_MARKDOWN = {"write_file": {"path": "a.py", "content": "x"}, "create_directory": {"path": "a"}}
MISSING: dict[str, Any] = {
    "read_file": {},
    "write_file": {"path": "a.md"},
    "create_directory": {},
    "execute_command": {"cwd": "a"},
    "search_in_code": {},
    "echo": {},
    "calculator": {},
    "switch_mode": {},
    "attempt_completion": {},
    "ask_followup_question": {},
}
WRONG_TYPE = {
    "read_file": {"path": ["a"]},
    "write_file": {"path": "a.md", "content": 1},
    "list_files": {"recursive": "yes"},
    "create_directory": {"path": 7},
    "execute_command": {"command": ["rm", "a"]},
    "search_in_code": {"query": "x", "max_results": 10_000},
    "echo": {"text": {}},
    "calculator": {"expr": 1},
    "switch_mode": {"mode": "root"},
    "attempt_completion": {"result": None},
    "ask_followup_question": {"question": "x", "suggestions": "y"},
}
UNKNOWN = {tool: {**arguments, "sudo": True} for tool, arguments in HARMLESS.items()}
ARGUMENT_KINDS: dict[str, dict[str, Any]] = {
    "harmless": HARMLESS,
    "outside": OUTSIDE,
    "pattern_outside": PATTERN_OUTSIDE,
    "repository": REPOSITORY,
    "reads": READS,
    "git_reads": GIT_READS,
    "shell": SHELL,
    "elsewhere": ELSEWHERE,
    "no_markdown": NO_MARKDOWN,
    "missing": MISSING,
    "wrong_type": WRONG_TYPE,
    "unknown": UNKNOWN,
}
INVALID_ARGUMENTS = ("deny", "arguments.invalid")
EXPECTED_VERDICTS = {
    ("harmless", "write_file"): ("ask", "write.file"),
    ("harmless", "create_directory"): ("ask", "write.directory"),
    ("harmless", "execute_command"): ("ask", "command.unproven"),
    ("harmless", "read_file"): ("allow", "harmless.read_file"),
    ("harmless", "list_files"): ("allow", "harmless.list_files"),
    ("harmless", "search_in_code"): ("allow", "harmless.search_in_code"),
    ("harmless", "echo"): ("allow", "harmless.local"),
    ("harmless", "calculator"): ("allow", "harmless.local"),
    ("harmless", "switch_mode"): ("allow", "harmless.control"),
    ("harmless", "attempt_completion"): ("allow", "harmless.control"),
    ("harmless", "ask_followup_question"): ("allow", "harmless.control"),
    ("reads", "execute_command"): ("allow", "command.read_only"),
    ("git_reads", "execute_command"): ("ask", "command.git_read"),
    ("shell", "execute_command"): ("ask", "command.unproven"),
    ("elsewhere", "execute_command"): ("ask", "path.cwd"),
    ("no_markdown", "write_file"): ("ask", "write.file"),
    ("no_markdown", "create_directory"): ("ask", "write.directory"),
    **{("outside", tool): ("deny", "path.outside") for tool in OUTSIDE},
    **{("repository", tool): ("deny", "path.outside") for tool in REPOSITORY},
    **{("pattern_outside", tool): ("deny", "pattern.outside") for tool in PATTERN_OUTSIDE},
    **{(kind, tool): INVALID_ARGUMENTS for kind in ("missing", "wrong_type", "unknown") for tool in TOOLS},
}
"""The verdicts for an agent that may use the tool and has no limits of its own."""


def predict_verdict(agent: str, tool: str, kind: str) -> tuple[str, str]:
    decision, rule = EXPECTED_VERDICTS[kind, tool]
    if rule == "arguments.invalid":
        return INVALID_ARGUMENTS
    if tool not in all_agents()[agent].tools:
        return "deny", "agent.tool"
    if agent == "architect" and tool == "write_file" and kind == "no_markdown":
        return "deny", "agent.may_write"
    if agent == "debug" and tool == "execute_command" and decision == "ask":
        return "ask", "agent.read_only_commands"
    return decision, rule


@pytest.mark.parametrize("kind", ARGUMENT_KINDS)
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("agent", all_agents())
def test_verdict_for_each_agent_tool_and_kind_of_argument(agent: str, tool: str, kind: str) -> None:
    if tool not in ARGUMENT_KINDS[kind]:
        return
    verdict = GATEKEEPER.evaluate_call(agent, tool, ARGUMENT_KINDS[kind][tool])
    assert (verdict.decision, verdict.rule) == predict_verdict(agent, tool, kind)
    assert verdict.reason.endswith(".")
    assert verdict.reason.isascii()


def test_matrix_agrees_with_the_verdicts() -> None:
    matrix = GATEKEEPER.permission_matrix()
    assert matrix["ask"]["write_file"] == [{"decision": "deny", "rule": "agent.tool"}]
    assert matrix["architect"]["write_file"] == [
        {"decision": "deny", "rule": "agent.may_write", "paths_but": ["*.md"]},
        {"decision": "ask", "rule": "write.file"},
    ]
    assert [each["decision"] for each in matrix["debug"]["execute_command"]] == ["ask", "allow", "ask", "ask"]
    for agent in AGENTS:
        for tool, outcomes in matrix[agent].items():
            verdict = GATEKEEPER.evaluate_call(agent, tool, HARMLESS[tool])
            assert (verdict.decision, verdict.rule) in {(each["decision"], each["rule"]) for each in outcomes}


def test_invalid_arguments_are_explained_to_the_model() -> None:
    assert GATEKEEPER.evaluate_call("coder", "write_file", {"path": "a", "mode": 1}).reason == (
        "The arguments of write_file are not valid: content: Field required; mode: Extra inputs are not permitted. "
        "Its arguments are: path, content, encoding, create_dirs, backup."
    )


@pytest.mark.parametrize("path", load_lines("paths_inside.txt"))
def test_path_inside_the_workspace_is_allowed(path: str) -> None:
    for tool, more in (("read_file", {}), ("write_file", {"content": "x"}), ("create_directory", {})):
        assert GATEKEEPER.evaluate_call("coder", tool, {"path": path, **more}).decision in ("allow", "ask")


@pytest.mark.parametrize("path", load_lines("paths_refused.txt"), ids=ascii)
def test_path_not_proven_inside_the_workspace_is_denied(path: Any) -> None:
    for tool, more in (("read_file", {}), ("write_file", {"content": "x"}), ("create_directory", {})):
        assert GATEKEEPER.evaluate_call("coder", tool, {"path": path, **more}).decision == "deny"


@pytest.mark.parametrize("pattern", ["*.py", "src/**/*.py", "test_[ab]?.py", "*.{js,ts}"])
def test_pattern_inside_the_workspace_is_allowed(pattern: str) -> None:
    assert GATEKEEPER.evaluate_call("ask", "list_files", {"pattern": pattern}).decision == "allow"


@pytest.mark.parametrize("pattern", ["../../*", "/etc/*", "**/../..", "~/*", "C:*", "a\\*", "", ".git/*", "a\x00"])
def test_pattern_that_could_leave_the_workspace_is_denied(pattern: str) -> None:
    assert (
        GATEKEEPER.evaluate_call("ask", "search_in_code", {"query": "x", "file_pattern": pattern}).rule
        == "pattern.outside"
    )


@pytest.mark.parametrize(
    ("path", "warning"),
    [
        ("CLAUDE.md", "Coding agents follow what this file says."),
        ("sub/agents.MD", "Coding agents follow what this file says."),
        (".github/workflows/ci.yml", "It is run by continuous integration, with its rights and its secrets."),
        (".env", "It may hold keys or other secrets, or decide who may log in."),
        ("home/.ssh/config", "It may hold keys or other secrets, or decide who may log in."),
        (".vscode/tasks.json", "Tools run the programs that it names without asking the user."),
        ("AGENTS\ufe0f.md", "Coding agents follow what this file says."),
        ("sub/mcp.json", "Coding agents follow what this file says."),
        (".roo/rules/a.md", "Coding agents follow what this file says."),
        ("AGENTS~1.MD", "Coding agents follow what this file says."),
        ("GITHUB~1/workflows/x.yml", "It is run by continuous integration, with its rights and its secrets."),
        (".gitea/workflows/a.yaml", "It is run by continuous integration, with its rights and its secrets."),
        ("ENV~1", "It may hold keys or other secrets, or decide who may log in."),
        (".pgpass", "It may hold keys or other secrets, or decide who may log in."),
        ("HUSKY~1/pre-commit", "Tools run the programs that it names without asking the user."),
        ("lib/x.pth", "Tools run the programs that it names without asking the user."),
        ("sub/package.json", "It names programs that run when the project is built, installed or tested."),
        ("makefile", "It names programs that run when the project is built, installed or tested."),
        (".cargo/config.toml", "It names programs that run when the project is built, installed or tested."),
        ("src/main.py", None),
        ("docs/report~1.txt", None),
        ("src/build.py", None),
    ],
)
def test_sensitive_path_carries_a_warning(path: str, warning: str | None) -> None:
    verdict = GATEKEEPER.evaluate_call("coder", "write_file", {"path": path, "content": "x"})
    asked = "Writing a file needs the user's approval."
    assert (verdict.decision, verdict.warning) == ("ask", warning)
    assert verdict.reason == (f"{asked} {warning}" if warning else asked)
