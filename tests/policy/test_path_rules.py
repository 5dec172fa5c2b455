"""Rules with paths hold for commands and searches as well, and patterns lead nowhere else."""

from pathlib import Path

import pytest

from graph.permissions.gatekeeper import Gatekeeper
from policy.patterns import find_pattern_error

POLICY = """
default: ask
rules:
  - {id: secret, tools: [read_file, search_in_code], paths: [.env, "secrets/**"], decision: deny, reason: No.}
  - {id: careful, tools: [write_file], paths: ["*.lock"], decision: ask, reason: Ask first.}
  - {id: read, tools: [read_file, search_in_code, list_files], decision: allow, reason: r}
  - {id: run, tools: [execute_command], decision: allow, reason: r}
"""


@pytest.fixture(scope="module")
def gatekeeper(tmp_path_factory: pytest.TempPathFactory) -> Gatekeeper:
    file: Path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    file.write_text(POLICY)
    return Gatekeeper(str(file))


@pytest.mark.parametrize(
    "command",
    [
        *("cat .env", "grep = .env", "cat './.env'", "cat .ENV", "head -n1 .env | cat", "cp .env x", "cat sub/.env"),
        *("cat secrets/a", "grep -f.env x", "dd if=.env", "cat <.env", "cat .e*", "cat .en?", "less secrets/a/b.txt"),
        *("python -c 'open(\".env\")'", "cat .env;ls", "ls && cat secrets/key"),
    ],
)
def test_a_command_that_names_a_denied_path_is_denied(gatekeeper: Gatekeeper, command: str) -> None:
    verdict = gatekeeper.evaluate_call("coder", "execute_command", {"command": command})
    assert (verdict.decision, verdict.rule) == ("deny", "secret")


@pytest.mark.parametrize("command", ["grep -r = .", "rg = src", "grep -rn x src", "tar cf - ."])
def test_a_command_that_may_reach_a_denied_path_asks(gatekeeper: Gatekeeper, command: str) -> None:
    verdict = gatekeeper.evaluate_call("coder", "execute_command", {"command": command})
    assert (verdict.decision, verdict.rule) == ("ask", "secret")


def test_a_folder_of_the_command_counts(gatekeeper: Gatekeeper) -> None:
    verdict = gatekeeper.evaluate_call("coder", "execute_command", {"command": "cat key", "cwd": "secrets"})
    assert (verdict.decision, verdict.rule) == ("deny", "secret")


def test_a_command_asks_for_a_path_whose_write_asks(gatekeeper: Gatekeeper) -> None:
    verdict = gatekeeper.evaluate_call("coder", "execute_command", {"command": "rm poetry.lock"})
    assert (verdict.decision, verdict.rule) == ("ask", "careful")


@pytest.mark.parametrize("command", ["cat README.md", "ls src", "grep x src/a.py", "cat .environment"])
def test_other_commands_pass(gatekeeper: Gatekeeper, command: str) -> None:
    assert gatekeeper.evaluate_call("coder", "execute_command", {"command": command}).decision == "allow"


@pytest.mark.parametrize(
    ("arguments", "decision"),
    [
        ({"query": "="}, "ask"),
        ({"query": "=", "path": "src"}, "ask"),
        ({"query": "=", "file_pattern": ".env"}, "deny"),
        ({"query": "=", "file_pattern": ".e*"}, "deny"),
        ({"query": "=", "path": ".env"}, "deny"),
    ],
)
def test_a_search_that_may_meet_a_denied_file_is_stopped(
    gatekeeper: Gatekeeper, arguments: dict[str, str], decision: str
) -> None:
    verdict = gatekeeper.evaluate_call("coder", "search_in_code", arguments)
    assert (verdict.decision, verdict.rule) == (decision, "secret")


@pytest.mark.parametrize(
    "pattern",
    [
        *("{..,x}/secret1", "{.,}{.,}/secret1", "[.][.]/secret1", ".gi?/config", "{.git,x}/config", "[.]git/x"),
        *(".[g]it/x", "?git/x", ".*", "..", "a/{b,..}/c", "@(..)/x", "!(a)", "[^x]git/config", "{a..c}", "x{"),
        *("**/.g*/config", "a[", "*.*/x", "../x", "/etc/*", "~/x", "*git/config", "GIT~1/config", "{,.}git/config"),
        *(".{git,x}/a", "[.]*/x", "+(.)/x", "{" * 9 + "a" + ",b}" * 9, "{a,b}" * 9),
    ],
)
def test_a_pattern_that_could_lead_out_is_refused(pattern: str) -> None:
    assert find_pattern_error(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "*.py",
        "**/*.{js,ts}",
        "src/[a-z]*.py",
        ".env*",
        ".github/**",
        "{a,b}",
        "*",
        "*.*",
        "**",
        "test_?.py",
        "[A-Z]*.md",
    ],
)
def test_an_ordinary_pattern_is_permitted(pattern: str) -> None:
    assert find_pattern_error(pattern) is None
