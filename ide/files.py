"""The tools that read and write files and folders. Their arguments are those of the wire."""

import codecs
from itertools import islice

from ide.workspace import ToolError, Workspace

FILE_LIMIT = 10_000_000
"""Bytes of a file that are read. More would not fit into one answer anyway; chosen, not measured."""
TEXT_LIMIT = 200_000
"""Characters of a file that are sent, many times what a model can use of one file; chosen, not measured."""
LIST_LIMIT = 2000
"""Entries of a folder that are sent, more than a model can use; chosen, not measured."""


def read_file(
    workspace: Workspace, path: str, encoding: str = "utf-8", start_line: int = 1, end_line: int | None = None
) -> str:
    """Return the text of a file. Lines count from 1, and both ends are included.

    A text that is too long is cut, with a note. Raises ToolError or OSError.
    """
    data = workspace.read_bytes(path, FILE_LIMIT + 1)
    lines = decode_text(data, encoding, path).split("\n")
    if start_line < 1 or start_line > len(lines):
        raise ToolError(f"{path!r} has {len(lines)} lines; start_line must be between 1 and that.")
    if end_line is not None and end_line < start_line:
        raise ToolError("end_line must not be before start_line.")
    last = min(end_line or len(lines), len(lines))
    text = "\n".join(lines[start_line - 1 : last]) + ("\n" if last < len(lines) else "")
    if len(text) <= TEXT_LIMIT and (len(data) <= FILE_LIMIT or last < len(lines)):
        return text
    text = text[:TEXT_LIMIT]
    return f"{text}\n[... cut in line {start_line + text.count(chr(10))}; read on with start_line and end_line ...]"


def decode_text(data: bytes, encoding: str, path: str) -> str:
    """Decode the data of a file. Data beyond FILE_LIMIT may end within a character. Raises ToolError."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data, final=len(data) <= FILE_LIMIT)
    except LookupError:
        raise ToolError(
            f"There is no encoding {encoding!r}; use utf-8, or the name of another text encoding."
        ) from None
    except (UnicodeError, ValueError):
        raise ToolError(
            f"{path!r} is not text in {encoding}; name its encoding, or leave it if it is binary."
        ) from None
    if not isinstance(text, str) or "\0" in text:
        raise ToolError(f"{path!r} is binary, or text in another encoding than {encoding}.")
    return text


def write_file(
    workspace: Workspace,
    path: str,
    content: str,
    encoding: str = "utf-8",
    create_dirs: bool = False,
    backup: bool = True,
) -> str:
    """Write a file, and return a sentence about it. A backup keeps its old content. Raises ToolError or OSError."""
    try:
        data = content.encode(encoding)
    except (LookupError, UnicodeError):
        raise ToolError(f"The content cannot be written in the encoding {encoding!r}; use utf-8.") from None
    new = workspace.write_bytes(path, data, create_dirs=create_dirs, backup=backup)
    return f"{'Created' if new else 'Replaced'} {path}, {len(data)} bytes."


def list_files(
    workspace: Workspace,
    path: str = ".",
    recursive: bool = False,
    include_hidden: bool = False,
    pattern: str | None = None,
) -> list[str]:
    """Return paths relative to the workspace, folders with a trailing slash. Raises ToolError or OSError."""
    depth = len(workspace.locate(path))
    matching = (e for e in workspace.walk(path, recursive=recursive) if pattern is None or e.matches_pattern(pattern))
    visible = (e for e in matching if include_hidden or not _is_hidden(e.path, depth))
    paths = [f"{e.path}/" if e.is_folder else e.path for e in islice(visible, LIST_LIMIT + 1)]
    if len(paths) > LIST_LIMIT:
        paths[-1] = f"[... more than {LIST_LIMIT}; narrow it by path or pattern ...]"
    return paths


def _is_hidden(path: str, depth: int) -> bool:
    """Return whether a name of the path, after the first `depth` ones, starts with a dot."""
    return any(name.startswith(".") for name in path.split("/")[depth:])


def create_directory(workspace: Workspace, path: str, recursive: bool = True) -> str:
    """Create a folder, and return a sentence about it. Raises ToolError or OSError."""
    return f"Created {path}." if workspace.make_folder(path, parents=recursive) else f"{path} exists."
