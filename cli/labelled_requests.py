"""Read labelled requests: those that score the choice of an agent, and those that the n-grams learn from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prompts import select_team

TEAM = select_team(multi_agent=True)


class LabelledRequest(NamedTuple):
    """A request, and the agent that it should go to."""

    agent: str
    text: str
    groups: tuple[str, ...]
    """Its other labels, such as its language and its difficulty."""


def read_requests(path: Path) -> Iterator[LabelledRequest]:
    """Yield the requests of a file. Raises ValueError, which names the line."""
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            request = _parse_json_line(line) if line.startswith("{") else _parse_columns(line)
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}:{number}: write AGENT TAB REQUEST, or JSON with agent and text") from None
        if request.agent not in TEAM:
            raise ValueError(f"{path}:{number}: there is no such agent; there are {', '.join(TEAM)}")
        yield request


def _parse_json_line(line: str) -> LabelledRequest:
    row = json.loads(line)
    groups = tuple(value for name, value in row.items() if name not in ("agent", "text") and isinstance(value, str))
    return LabelledRequest(row["agent"], str(row["text"]), groups)


def _parse_columns(line: str) -> LabelledRequest:
    """Parse a line of columns; `\\n` in a request stands for the end of a line. Raises ValueError."""
    agent, *groups, text = line.split("\t")
    if not agent or not text:
        raise ValueError
    return LabelledRequest(agent, text.replace("\\n", "\n"), tuple(groups))
