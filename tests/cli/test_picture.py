"""`python -m cli picture`: the picture of the graph in a Markdown file."""

from pathlib import Path

import pytest

from cli.__main__ import main
from graph.studio import graph
from tests.support.paths import PROJECT_ROOT

PICTURE = graph.get_graph().draw_mermaid().strip()


def test_picture_replaces_the_first_mermaid_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "doc.md"
    file.write_text("# Graph\n\n```mermaid\ngraph TD;\n```\n\nText.\n\n```mermaid\nsecond\n```\n", encoding="utf-8")
    assert main(["picture", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == (
        f"# Graph\n\n```mermaid\n{PICTURE}\n```\n\nText.\n\n```mermaid\nsecond\n```\n"
    )
    assert capsys.readouterr().out == f"The picture in {file} is new.\n"


def test_picture_leaves_a_current_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "doc.md"
    file.write_text(f"```mermaid\n{PICTURE}\n```\n", encoding="utf-8")
    file.chmod(0o444)
    before = file.stat()
    assert main(["picture", str(file)]) == 0
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert capsys.readouterr().out == f"{file} shows the current graph already.\n"


def test_picture_fills_an_empty_block_of_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("```mermaid\n```\n", encoding="utf-8")
    assert main(["picture"]) == 0
    assert readme.read_text(encoding="utf-8") == f"```mermaid\n{PICTURE}\n```\n"


def test_picture_command_leaves_the_project_pages_as_they_are(tmp_path: Path) -> None:
    """`make picture` gives both pages in one call."""
    pages = {tmp_path / Path(name).name: PROJECT_ROOT / name for name in ("README.md", "docs/architecture.md")}
    for copy, page in pages.items():
        copy.write_bytes(page.read_bytes())
    assert main(["picture", *map(str, pages)]) == 0
    assert [copy.read_bytes() for copy in pages] == [page.read_bytes() for page in pages.values()]


@pytest.mark.parametrize("content", ["", "# Graph\n", "```\nmermaid\n```\n", "```mermaid\ngraph TD;\n"])
def test_picture_needs_a_block(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    file = tmp_path / "doc.md"
    file.write_text(content, encoding="utf-8")
    assert main(["picture", str(file)]) == 2
    assert file.read_text(encoding="utf-8") == content
    assert capsys.readouterr().err == (
        f"It could not be done: {file} has no ```mermaid block; add an empty one where the picture belongs\n"
    )


def test_picture_needs_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["picture", str(tmp_path / "none.md")]) == 2
    assert "No such file or directory" in capsys.readouterr().err
