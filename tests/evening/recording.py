"""The recording of the evening, with a line of JSON for each turn: the user's input, and the model's answers."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

RECORDING = Path(__file__).with_name("recording.jsonl")
DRAFT, FINAL = "DRAFT", "FINAL"
"""The user who edits a call replaces the first word by the second."""
CTRL_C = "^C"
DECISIONS = {"a": "approve", "t": "approve", "s": "approve", "e": "edit", "r": "reject"}


class FrozenModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordedToolCall(FrozenModel):
    tool: str
    args: dict[str, Any] | str
    """A text is what the model wrote in place of JSON."""
    user: list[str] = []
    """The user's input when the call requires approval."""
    id: str | None = None
    """The id of the call; None: one that no other call has."""

    @property
    def decision(self) -> str | None:
        return DECISIONS.get(self.user[0]) if self.user else None

    @property
    def final_arguments(self) -> dict[str, Any]:
        """Return the arguments in the history."""
        if isinstance(self.args, str):
            return {}
        edited: dict[str, Any] = json.loads(json.dumps(self.args).replace(DRAFT, FINAL))
        return edited if self.decision == "edit" else self.args


class RecordedModelCall(FrozenModel):
    """The answer to one model call."""

    by: str
    """The agent that makes the call."""
    text: str = ""
    calls: list[RecordedToolCall] = []
    """The service keeps the first of several."""
    chooses: str = ""
    fault: str = ""
    """A name of FAULTS in tests.evening.model."""


class RecordedTurn(FrozenModel):
    before: list[str] = []
    """Commands of the IDE before the message."""
    user: str
    model: list[RecordedModelCall]
    errors: list[str] = []
    """The codes of the errors that the user sees."""

    @property
    def user_text(self) -> str:
        """Return the user's message, without the command around it."""
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
    """Return the files after all writes of the evening."""
    files = dict(before)
    for path, content in _iter_writes(turns):
        files |= {f"{path}.bak": files[path]} if path in files else {}
        files[path] = content
    return files


def _iter_writes(turns: Sequence[RecordedTurn]) -> Iterator[tuple[str, str]]:
    for call in list_tool_calls(turns):
        if call.tool == "write_file" and call.decision in ("approve", "edit"):
            yield call.final_arguments["path"], call.final_arguments["content"]
