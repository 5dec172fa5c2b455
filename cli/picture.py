"""`python -m cli picture`: write the picture of the compiled graph into Markdown files."""

import argparse
import re
from pathlib import Path
from typing import Any

PICTURE_BLOCK = re.compile(r"^```mermaid\n.*?^```", re.MULTILINE | re.DOTALL)


def add_arguments(commands: Any) -> None:
    picture = commands.add_parser("picture", help="write the picture of the graph into Markdown files")
    picture.add_argument(
        "files",
        nargs="*",
        metavar="file",
        type=Path,
        default=[Path("README.md")],
        help="its first ```mermaid block; default: README.md",
    )
    picture.set_defaults(run=write_picture)


def write_picture(options: argparse.Namespace) -> int:
    """Replace the first Mermaid block of each file by the current graph. Raises ValueError if a file has none."""
    for path in options.files:
        _replace_picture(path)
    return 0


def _replace_picture(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    block = PICTURE_BLOCK.search(text)
    if not block:
        raise ValueError(f"{path} has no ```mermaid block; add an empty one where the picture belongs")
    drawn = f"{text[: block.start()]}```mermaid\n{draw_graph()}\n```{text[block.end() :]}"
    if drawn == text:
        print(f"{path} shows the current graph already.")
        return
    path.write_text(drawn, encoding="utf-8")
    print(f"The picture in {path} is new.")


def draw_graph() -> str:
    """Return the compiled graph as a Mermaid diagram."""
    from graph.studio import graph  # compiles the graph, which the other commands do not need

    return graph.get_graph().draw_mermaid().strip()
