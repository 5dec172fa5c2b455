"""The documents name only tests, make targets and files that exist."""

import re
from itertools import chain
from pathlib import Path

import pytest

from tests.support.paths import PROJECT_ROOT

PAGES = sorted(chain(PROJECT_ROOT.glob("*.md"), PROJECT_ROOT.glob("docs/*.md")))
HISTORY = {"CHANGELOG.md"}
"""Pages that name files as they were."""
EXAMPLE_FILES = {"docs/crash.md"}
"""Files of an imagined project, in examples."""
FILE_NAME = re.compile(r"[\w.*-]+(/[\w.*-]+)*/?")
EXTENSIONS = (".conf", ".json", ".lock", ".md", ".py", ".toml", ".txt", ".yaml", ".yml")
IGNORED_FOLDERS = {".git", ".venv"}

each_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(PROJECT_ROOT)) for page in PAGES])


def find_code(page: Path) -> list[str]:
    """Return the code of a page: its blocks, and the spans in its text."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)
    return blocks + find_code_spans(page)


def find_code_spans(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def list_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):(?!=)", (PROJECT_ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def exists(name: str) -> bool:
    """Return whether a file of that path exists, which may hold wildcards; a bare name may be in any folder."""
    if "/" in name.rstrip("/"):
        return any(PROJECT_ROOT.glob(name))
    found = PROJECT_ROOT.rglob(name.rstrip("/"))
    return any(not IGNORED_FOLDERS & {*path.relative_to(PROJECT_ROOT).parts} for path in found)


@each_page
def test_page_names_only_targets_that_exist(page: Path) -> None:
    used = {word for code in find_code(page) for word in re.findall(r"(?:^|[\s;&])make ([a-z][a-z-]*)", code)}
    assert used <= list_targets(), f"{page.name}: the Makefile has no such target; correct the page or add the target"


@each_page
def test_page_names_only_files_that_exist(page: Path) -> None:
    if page.name in HISTORY:
        return
    named = {
        code.partition(":")[0]
        for code in find_code_spans(page)
        if "://" not in code and FILE_NAME.fullmatch(code.partition(":")[0])
    }
    files = {name for name in named if "/" in name or name.endswith(EXTENSIONS)} - EXAMPLE_FILES
    missing = {name for name in files if not exists(name)}
    assert not missing, f"{page.name}: there is no {', '.join(sorted(missing))}; name the file as it is called now"


@each_page
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing, f"{page.name}: correct the links {missing}"


def test_every_target_has_a_line_of_help() -> None:
    """Plain `make` prints these lines."""
    makefile = (PROJECT_ROOT / "Makefile").read_text("utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE)
    described = set(re.findall(r"^([a-z-]+):(?!=).* ## ", makefile, re.MULTILINE))
    assert {*phony.split()} == described, "write `target: ... ## what it does`, and name the target in .PHONY"


def test_every_test_named_in_the_security_page_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (PROJECT_ROOT / "docs" / "security.md").read_text("utf-8")))
    code = "\n".join(file.read_text("utf-8") for file in (PROJECT_ROOT / "tests").rglob("test_*.py"))
    missing = named - set(re.findall(r"def (test_\w+)\(", code))
    assert not missing, f"docs/security.md: there are no such tests; name the ones that hold it now: {missing}"
    assert len(named) > 30
