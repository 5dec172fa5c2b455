"""The security page names tests that exist, and `make` explains every target."""

import re

from tests.support.paths import PROJECT_ROOT


def test_every_test_named_in_the_security_page_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (PROJECT_ROOT / "docs" / "security.md").read_text("utf-8")))
    code = "\n".join(file.read_text("utf-8") for file in (PROJECT_ROOT / "tests").rglob("test_*.py"))
    missing = named - set(re.findall(r"def (test_\w+)\(", code))
    assert not missing, f"docs/security.md: there are no such tests; name the ones that hold it now: {missing}"
    assert len(named) > 30


def test_every_target_has_a_line_of_help() -> None:
    """Plain `make` prints these lines."""
    makefile = (PROJECT_ROOT / "Makefile").read_text("utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE)
    described = set(re.findall(r"^([a-z-]+):(?!=).* ## ", makefile, re.MULTILINE))
    assert {*phony.split()} == described, "write `target: ... ## what it does`, and name the target in .PHONY"
