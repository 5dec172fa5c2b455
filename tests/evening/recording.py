"""The evening as it was recorded, a line of JSON a turn: what the user typed, and what was said and done then."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

RECORDING = Path(__file__).with_name("recording.jsonl")
DRAFT, FINAL = "DRAFT", "FINAL"
"""The user who edits a call puts the one in the place of the other."""
CTRL_C = "^C"
DECISIONS = {"a": "approve", "t": "approve", "s": "approve", "e": "edit", "r": "reject"}


class FrozenModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordedToolCall(FrozenModel):
    tool: str
    args: dict[str, Any] | str
    """A text: as the model wrote it, and no JSON."""
    user: list[str] = []
    """What the user typed when asked about it."""
    id: str | None = None
    """Instead of one that no other call has."""

    @property
    def decision(self) -> str | None:
        return DECISIONS.get(self.user[0]) if self.user else None

    @property
    def final_arguments(self) -> dict[str, Any]:
        """The arguments that the history has."""
        if isinstance(self.args, str):
            return {}
        edited: dict[str, Any] = json.loads(json.dumps(self.args).replace(DRAFT, FINAL))
        return edited if self.decision == "edit" else self.args


class RecordedModelCall(FrozenModel):
    """One call of a model: what it is answered with."""

    by: str
    """The agent that it is for."""
    text: str = ""
    calls: list[RecordedToolCall] = []
    """Of several the service takes the first."""
    chooses: str = ""
    fault: str = ""
    """Its name in `tests.evening.model`."""


class RecordedTurn(FrozenModel):
    before: list[str] = []
    """Commands of the IDE."""
    user: str
    model: list[RecordedModelCall]
    errors: list[str] = []
    """Their codes, as the user sees them."""

    @property
    def user_text(self) -> str:
        """What the user said, without the command that it may stand in."""
        return self.user.split(maxsplit=2)[2] if self.user.startswith("/agent ") else self.user

    @property
    def calls(self) -> list[RecordedToolCall]:
        return [line.calls[0] for line in self.model if line.calls]

    @property
    def user_inputs(self) -> list[str]:
        return [text for call in self.calls for text in call.user]


def load_turns() -> list[RecordedTurn]:
    return [RecordedTurn.model_validate_json(line) for line in RECORDING.read_text().splitlines()]


def list_tool_calls(turns: Sequence[RecordedTurn]) -> list[RecordedToolCall]:
    return [call for turn in turns for call in turn.calls]


def list_agent_switches(turns: Sequence[RecordedTurn]) -> list[tuple[str, str]]:
    holders = ["orchestrator", *(line.by for turn in turns for line in turn.model)]
    return [(before, after) for before, after in pairwise(holders) if before != after]


def read_tree(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def apply_writes(turns: Sequence[RecordedTurn], before: dict[str, str]) -> dict[str, str]:
    """The files as the evening leaves them."""
    files = dict(before)
    for path, content in _iter_writes(turns):
        files |= {f"{path}.bak": files[path]} if path in files else {}
        files[path] = content
    return files


def _iter_writes(turns: Sequence[RecordedTurn]) -> Iterator[tuple[str, str]]:
    for call in list_tool_calls(turns):
        if call.tool == "write_file" and call.decision in ("approve", "edit"):
            yield call.final_arguments["path"], call.final_arguments["content"]
