"""What the documents claim to be held by tests is."""

import re

from tests.support.paths import PROJECT_ROOT


def test_every_test_named_in_the_security_doc_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (PROJECT_ROOT / "docs" / "security.md").read_text("utf-8")))
    code = "\n".join(file.read_text("utf-8") for file in (PROJECT_ROOT / "tests").rglob("test_*.py"))
    assert named - set(re.findall(r"def (test_\w+)\(", code)) == set()
    assert len(named) > 30
