"""Search the texts of a workspace: `python -m ide.search ARGUMENTS`.

A program of its own, since an endless regular expression can only be killed. ARGUMENTS are those of `search_texts`, as
a JSON list. It prints `{"result": [...]}`, `{"error": "..."}` or `{"errno": n}`.
"""

import errno
import json
import re
import stat
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import PurePath
from typing import Any, TypedDict

from ide.workspace import FolderEntry, ToolError, Workspace, read_file_at

FILE_LIMIT = 2_000_000
"""Bytes of a file. Larger files are skipped, as binary ones are: they are seldom source code. Chosen, not measured."""
LINE_LIMIT = 500
"""Characters of a line that are sent. Only generated code has longer ones; chosen, not measured."""


class SearchMatch(TypedDict):
    """A line that matches."""

    path: str
    """The file, relative to the workspace."""
    line: int
    """The number of the line, from 1."""
    text: str


def search_texts(
    root: str, query: str, path: str, file_pattern: str | None, case_sensitive: bool, regex: bool, max_results: int
) -> list[SearchMatch]:
    """Return the first matching lines, in the order of the paths. Raises ToolError, OSError or NotADirectoryError."""
    try:
        pattern = re.compile(query if regex else re.escape(query), 0 if case_sensitive else re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ToolError(f"The regular expression is not valid: {error}. Correct it, or search without regex.") from None
    matches = (
        match
        for name, text in _iterate_texts(Workspace(root), path, file_pattern)
        for match in _find_matches(name, text, pattern)
    )
    return list(islice(matches, max_results))


def _iterate_texts(workspace: Workspace, path: str, file_pattern: str | None) -> Iterator[tuple[str, str]]:
    """Yield the paths and texts of the files. A file that is skipped or cannot be read has the text ""."""
    if not stat.S_ISDIR(workspace.get_status(path).st_mode):
        yield PurePath(*workspace.locate(path)).as_posix(), _decode_text(workspace.read_bytes(path, FILE_LIMIT + 1))
        return
    for entry in workspace.walk(path):
        if not entry.is_folder and (file_pattern is None or entry.matches_pattern(file_pattern)):
            yield entry.path, _read_entry(entry)


def _read_entry(entry: FolderEntry) -> str:
    try:
        return _decode_text(read_file_at(entry.parent, entry.name, FILE_LIMIT + 1))
    except (OSError, ToolError):
        return ""


def _decode_text(data: bytes) -> str:
    return "" if len(data) > FILE_LIMIT or b"\0" in data else data.decode("utf-8", "replace")


def _find_matches(name: str, text: str, pattern: re.Pattern[str]) -> Iterator[SearchMatch]:
    for number, line in enumerate(text.split("\n"), 1):
        if pattern.search(line):
            yield SearchMatch(path=name, line=number, text=line.rstrip("\r")[:LINE_LIMIT])


class SearchAnswer(TypedDict, total=False):
    """The output of the program; it has one of these."""

    result: list[SearchMatch]
    error: str
    """The sentence of a ToolError."""
    errno: int
    """The number of an OSError."""


def answer_request(arguments: list[Any]) -> SearchAnswer:
    """Search with the arguments of `search_texts`, and return matches or the error."""
    try:
        return {"result": search_texts(*arguments)}
    except ToolError as error:
        return {"error": str(error)}
    except OSError as error:
        return {"errno": error.errno or errno.ENOTDIR}


if __name__ == "__main__":
    print(json.dumps(answer_request(json.loads(sys.argv[1]))))
