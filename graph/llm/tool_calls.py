"""The tool calls of one answer, put together from whatever pieces the service sends them in."""

import json
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import InvalidToolCall, ToolCall
from langchain_core.messages.tool import invalid_tool_call, tool_call

from graph.errors import LLMInvalidAnswer
from graph.llm.faults import Fault
from graph.sanitize import clean, deeper_than

MAX_CALLS = 128
MAX_DEPTH = 64


@dataclass
class Call:
    id: str | None = None
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Calls:
    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._at: dict[int, Call] = {}

    def add(self, parts: Any, whole: bool) -> None:
        """`parts` is the value of `tool_calls`: of a message, where each is a call, or of a delta."""
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._add(part, whole)

    def whole(self) -> tuple[list[ToolCall], list[InvalidToolCall]]:
        good: list[ToolCall] = []
        bad: list[InvalidToolCall] = []
        for call in self._calls:
            raw = "".join(call.arguments)
            arguments = parsed(raw)
            if arguments is not None:
                good.append(tool_call(name=call.name, args=arguments, id=call.id))
            else:
                error = "The arguments are not a JSON object."
                bad.append(invalid_tool_call(name=call.name, args=quoted(clean(raw)), id=call.id, error=error))
        return good, bad

    def _add(self, part: dict[str, Any], whole: bool) -> None:
        said = part.get("function")
        function: dict[str, Any] = said if isinstance(said, dict) else {}
        call_id, name, arguments = _text(part.get("id")), _text(function.get("name")), _json(function.get("arguments"))
        call = self._new() if whole else self._open(part.get("index"), call_id, name, arguments)
        call.id = call.id or call_id or None
        call.name = call.name or name
        if arguments:
            call.arguments.append(arguments)

    def _open(self, index: Any, call_id: str, name: str, arguments: str) -> Call:
        """The call that a delta goes on with. Some services number no call, some number every call 0."""
        if not isinstance(index, int):
            last = self._calls[-1] if self._calls else None
            return last if last and not _is_next(last, call_id, name) else self._new()
        call = self._at.get(index)
        if call is None or (call_id and call.id and call_id != call.id) or (name and _is_over(call, arguments)):
            call = self._at[index] = self._new()
        return call

    def _new(self) -> Call:
        if len(self._calls) == MAX_CALLS:
            sentence = "The model asked for too many tools at once. Ask for less in one step."
            raise Fault(LLMInvalidAnswer(sentence), "too many tool calls", retry=False)
        self._calls.append(Call())
        return self._calls[-1]


def _is_next(last: Call, call_id: str, name: str) -> bool:
    if call_id and last.id:
        return call_id != last.id
    return bool(name and last.name)


def _is_over(call: Call, arguments: str) -> bool:
    """Whether they begin anew after an object: two calls of one number and id, not one whose name is said again."""
    return bool(call.arguments) and call.arguments[-1].rstrip().endswith("}") and arguments.lstrip().startswith("{")


def _json(arguments: Any) -> str:
    return "" if arguments is None else arguments if isinstance(arguments, str) else json.dumps(arguments)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def parsed(raw: str) -> dict[str, Any] | None:
    """None unless it is a JSON object. Nothing at all is one, and so is one with bare newlines in its strings."""
    try:
        value = json.loads(raw, strict=False) if raw.strip() else {}
    except (ValueError, RecursionError):
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) and not deeper_than(MAX_DEPTH, value) else None


def quoted(raw: str) -> str:
    """langchain repairs half JSON when chunks are added up, in quadratic time, and half a call must never run.

    As a JSON string it stays what it is; what is short and cannot be taken for an object stays as the model wrote it.
    """
    return json.dumps(raw) if len(raw) > 200 or raw.lstrip().startswith("{") else raw
