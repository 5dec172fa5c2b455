"""Labelled lines in tests/corpus: paths, commands and requests."""

import json
from typing import Any

from tests.support.paths import CORPUS


def read_lines(name: str) -> list[str]:
    """Return the lines of a file that are not empty; a line may hold U+2028 and the like."""
    return [line for line in (CORPUS / name).read_text("utf-8").split("\n") if line]


def load_lines(name: str) -> list[Any]:
    """Return the values of a file with one JSON value a line."""
    return [json.loads(line) for line in read_lines(name)]
