"""The pages agree with the code: diagrams, numbers, paths, names, settings and commands."""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from cli.picture import draw_graph
from graph.setting_aliases import FORMER_NAMES
from graph.settings import Settings
from sessions.runs.status import draw_transitions
from tests.chaos.scenarios import SCENARIOS
from tests.support.paths import PROJECT_ROOT

PAGES = [
    str(path.relative_to(PROJECT_ROOT))
    for path in sorted([*PROJECT_ROOT.glob("*.md"), *(PROJECT_ROOT / "docs").glob("*.md")])
]
HISTORY = "CHANGELOG.md"
"""Names what was there before."""
EXAMPLES = "docs/keywords.md"
"""Its paths are words of requests."""


def test_architecture_shows_the_current_graph() -> None:
    advice = "the graph has changed; run: make picture"
    assert read_diagram("The graph") == draw_graph(), advice


def test_architecture_shows_the_current_states_of_a_run() -> None:
    states = draw_transitions()
    advice = f"the states have changed; put this under 'The states of a run' in docs/architecture.md:\n{states}"
    assert read_diagram("The states of a run") == states, advice


def read_diagram(heading: str) -> str:
    """Return the first Mermaid diagram of a section of the architecture page."""
    section = read_page("docs/architecture.md").partition(f"\n## {heading}\n")[2]
    shown = re.search(r"^```mermaid\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert shown, f"docs/architecture.md needs a Mermaid diagram under the heading {heading!r}"
    return shown[1].strip()


def test_architecture_shows_the_current_numbers() -> None:
    """The rows `| [NAME](file) | value |` have the values of the code."""
    row = re.compile(r"^\| \[`(\w+)`\]\(\.\./([\w/]+)\.py\) \| ([\d.]+) \|", re.MULTILINE)
    rows = row.findall(read_page("docs/architecture.md"))
    current = [(name, module, str(getattr(import_module(module.replace("/", ".")), name))) for name, module, _ in rows]
    assert rows == current, "put the current values into docs/architecture.md"
    assert len(rows) > 10


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_names_that_exist(page: str) -> None:
    """A link to code is written [`name`](path): the file contains the name."""
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", read_page(page)):
        path, _, anchor = target.partition("#")
        file = ((PROJECT_ROOT / page).parent / path).resolve() if path else PROJECT_ROOT / page
        if "://" in target:
            continue
        assert file.exists(), f"{page} links to {target}, which does not exist"
        if anchor:
            assert anchor in list_anchors(file), f"{page} links to {target}, which has no such heading"
        if file.suffix == ".py" and text.startswith("`"):
            name = text.strip("`").rpartition(".")[2]
            assert re.search(rf"\b{name}\b", file.read_text("utf-8")), f"{page}: {path} has no {name}"


def list_anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.casefold()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if page not in (HISTORY, EXAMPLES)])
def test_paths_in_the_pages_exist(page: str) -> None:
    """A path in backticks starts at the root of the project. In "`name` in `path`" the file contains the name."""
    roots = {path.name for path in PROJECT_ROOT.iterdir()}
    named = set(re.findall(r"`([\w.-]+/[\w./-]*)`", read_page(page)))
    paths = {path for path in named if path.split("/")[0] in roots or path.endswith((".py", ".md", ".yaml"))}
    assert {path for path in paths if not (PROJECT_ROOT / path).exists()} == set()
    for name, path in re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", read_page(page)):
        assert re.search(rf"\b{name}\b", (PROJECT_ROOT / path).read_text("utf-8")), f"{page}: {path} has no {name}"


def test_code_map_names_every_room() -> None:
    """The map has a row for each package and for each module beside the packages of graph and sessions."""
    missing = [room for room in list_rooms() if f"`{room}`" not in read_page("AGENTS.md")]
    assert not missing, f"name these rooms in the first table of AGENTS.md: {missing}"


def list_rooms() -> Iterator[str]:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text("utf-8"))
    parted = ("graph", "sessions")
    yield from (f"{room}/" for room in project["tool"]["importlinter"]["root_packages"] if room not in parted)
    for room in parted:
        for path in sorted((PROJECT_ROOT / room).iterdir()):
            if (path / "__init__.py").exists():
                yield f"{path.relative_to(PROJECT_ROOT)}/"
            elif path.suffix == ".py" and path.name != "__init__.py":
                yield str(path.relative_to(PROJECT_ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if page != HISTORY])
def test_settings_in_the_pages_exist(page: str) -> None:
    """The first column of a table of settings names fields of `Settings`."""
    tables = re.findall(r"^\| setting\b.*\n(?:\|.*\n)+", read_page(page), re.MULTILINE)
    first_cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    named = {name for cell in first_cells for name in re.findall(r"`([A-Z_]+)`", cell)}
    assert named - {name.upper() for name in Settings.model_fields} == set()


def test_changelog_lists_the_former_names_of_settings() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|$", read_page(HISTORY), re.MULTILINE)
    assert {former.lower(): name.lower() for former, name in rows} == FORMER_NAMES


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_pages_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT_ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^    |\n)make ([a-z-]+)", read_page(page)))
    assert named - targets == set()


def test_chaos_scenarios_in_the_operations_page_exist() -> None:
    cells = re.findall(r"chaos ((?:`[a-z-]+`(?:, )?)+)", read_page("docs/operations.md"))
    named = {name for cell in cells for name in re.findall(r"`([a-z-]+)`", cell)}
    assert named - SCENARIOS.keys() == set()
    assert len(named) > 5


@cache
def read_page(page: str) -> str:
    return (PROJECT_ROOT / page).read_text("utf-8")
