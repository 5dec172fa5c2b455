"""The gate's judgement, row by row."""

import pytest

from graph.calculator import calculate
from graph.gate import verdict
from graph.tools import TOOLS, specification
from policy.commands import is_read_only
from policy.paths import fault
from prompts import AGENTS

MAY = {
    "read_file": {"path": "a.py"},
    "write_file": {"path": "notes/a.MD", "content": "x"},
    "list_files": {},
    "create_directory": {"path": "a"},
    "execute_command": {"command": "make"},
    "search_in_code": {"query": "x"},
    "echo": {"text": "x"},
    "calculator": {"expr": "1"},
    "switch_mode": {"mode": "ask"},
    "attempt_completion": {"result": "x"},
    "ask_followup_question": {"question": "x"},
}
ASKS = {"write_file", "create_directory", "execute_command"}


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("tool", TOOLS)
def test_each_agent_has_its_tools_and_no_other(agent: str, tool: str) -> None:
    decision = verdict(agent, tool, MAY[tool]).decision
    has = tool in AGENTS[agent].tools
    assert decision == (("ask" if tool in ASKS else "allow") if has else "deny")


@pytest.mark.parametrize(
    "path", ["a.py", "src/a b.py", ".github/ci.yml", "./a.py", "данные/файл.txt", "a..b", "...a/b"]
)
def test_a_path_inside_the_workspace(path: str) -> None:
    assert fault(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        " ",
        "/etc/passwd",
        "..",
        "../a",
        "a/../../b",
        "a.md/../b.py",
        "~/.ssh/id_rsa",
        "C:\\a",
        "c:a",
        "\\\\host\\share",
        "a\\b",
        "a.py:stream",
        "a\x00.md",
        "a\u202e.md",
        "a\n.md",
        "a.md ",
        "a.md.",
        " a.md",
        "con",
        "AUX.txt",
        "nul .md",
        "$HOME/a",
        "%APPDATA%/a",
        "%2e%2e/a",
        "a/*",
        "a?.md",
        ".git/hooks/pre-commit",
        ".GIT/config",
        "a∕b",
        "．．/a",
        "x" * 300,
        "a/" * 3000,
        7,
        None,
        ["a"],
    ],
)
def test_a_path_that_is_not_proven_inside_the_workspace(path: object) -> None:
    assert fault(path)


@pytest.mark.parametrize("pattern", ["*.py", "src/**/*.py", "test_[ab]?.py", "*.{js,ts}"])
def test_a_pattern_of_names_inside_the_workspace(pattern: str) -> None:
    assert verdict("ask", "list_files", {"pattern": pattern}).decision == "allow"


@pytest.mark.parametrize("pattern", ["../../*", "/etc/*", "**/../..", "~/*", "C:*", "a\\*", ""])
def test_a_pattern_that_could_leave_the_workspace(pattern: str) -> None:
    assert verdict("ask", "search_in_code", {"query": "x", "file_pattern": pattern}).rule == "pattern.outside"


@pytest.mark.parametrize(
    "command",
    ["ls", "ls -la src", "cat a.py b.py", "head -n 5 a.py", "wc -l a.py", "grep -rn TODO src", "pwd", "diff -u a b"],
)
def test_a_command_that_is_proven_read_only(command: str) -> None:
    assert is_read_only({"command": command})


@pytest.mark.parametrize(
    "arguments",
    [
        {"command": command}
        for command in [
            "make",
            "rm a",
            "python -m pytest",
            "git status",
            "git show > ~/.ssh/id_rsa",
            "cat a > b",
            "cat a; rm b",
            "cat a && rm b",
            "cat a | sh",
            "cat $(rm b)",
            "cat `rm b`",
            "cat a\nrm b",
            "cat 'a' b",
            "cat *",
            "cat ../a",
            "cat /etc/passwd",
            "cat ~/.ssh/id_rsa",
            "env ls",
            "A=b ls",
            "/bin/ls",
            "./ls",
            "LS",
            "ls --color=always",
            "sort -o b a",
            "tail -f a",
            "date 1225",
            "head -n x a",
            "grep -f ../a b",
            "grep foo",
            "cat",
            "wc -l",
            "",
            "x" * 5000,
        ]
    ]
    + [
        {"command": "ls", "shell": True},
        {"command": "ls", "cwd": "../.."},
        {"command": ["ls"]},
        {"command": None},
    ],
)
def test_a_command_that_is_not_proven_read_only(arguments: dict[str, object]) -> None:
    assert not is_read_only(arguments)


@pytest.mark.parametrize(
    ("expression", "value"),
    [("2*(3+4)", "14"), ("7 // 2 - -1", "4"), ("1/4", "0.25"), ("2**64", "18446744073709551616"), (" 5 % 3 ", "2")],
)
def test_arithmetic(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "x",
        "1+",
        "abs(1)",
        "'a'*9",
        "1/0",
        "9**9**9",
        "10**5000",
        "1e308*1e308**9",
        "1e308*10",
        "1e308*10-1e308*10",
        "(-1)**0.5",
        "(" * 200,
        "True",
    ],
)
def test_what_is_no_arithmetic_is_refused_with_a_sentence(expression: str) -> None:
    with pytest.raises(ValueError, match=r"is not arithmetic|too large|by zero|not a real number"):
        calculate(expression)


def test_a_tool_is_described_to_the_model_without_our_own_words() -> None:
    assert specification("list_files") == {
        "type": "function",
        "function": {
            "name": "list_files",
            "description": "List the files and folders of a folder.",
            "parameters": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "path": {"type": "string", "default": ".", "description": "Relative to the workspace."},
                    "recursive": {"type": "boolean", "default": False},
                    "include_hidden": {"type": "boolean", "default": False},
                    "pattern": {"type": "string", "description": "A glob the names must match, such as *.py."},
                },
            },
        },
    }
