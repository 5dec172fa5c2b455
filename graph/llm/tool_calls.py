"""The tool calls of one answer, put together from whatever pieces the service sends them in."""

import json
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import InvalidToolCall, ToolCall
from langchain_core.messages.tool import invalid_tool_call, tool_call

from graph.errors import LLMInvalidAnswer
from graph.llm.faults import Fault
from graph.sanitize import is_deeper_than, sanitize_value

MAX_CALLS = 128
MAX_DEPTH = 64


@dataclass
class PartialToolCall:
    id: str | None = None
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ToolCallAssembler:
    def __init__(self) -> None:
        self._calls: list[PartialToolCall] = []
        self._calls_by_index: dict[int, PartialToolCall] = {}

    def add_parts(self, parts: Any, is_complete: bool) -> None:
        """`parts` is the value of `tool_calls`: of a message, where each is a call, or of a delta."""
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._add_part(part, is_complete)

    def build_calls(self) -> tuple[list[ToolCall], list[InvalidToolCall]]:
        good: list[ToolCall] = []
        bad: list[InvalidToolCall] = []
        for call in self._calls:
            raw = "".join(call.arguments)
            arguments = parse_arguments(raw)
            if arguments is not None:
                good.append(tool_call(name=call.name, args=arguments, id=call.id))
            else:
                error = "The arguments are not a JSON object."
                bad.append(
                    invalid_tool_call(
                        name=call.name, args=quote_arguments(sanitize_value(raw)), id=call.id, error=error
                    )
                )
        return good, bad

    def _add_part(self, part: dict[str, Any], is_complete: bool) -> None:
        said = part.get("function")
        function: dict[str, Any] = said if isinstance(said, dict) else {}
        call_id, name, arguments = (
            _coerce_text(part.get("id")),
            _coerce_text(function.get("name")),
            _encode_arguments(function.get("arguments")),
        )
        call = self._start_call() if is_complete else self._find_or_start(part.get("index"), call_id, name, arguments)
        call.id = call.id or call_id or None
        call.name = call.name or name
        if arguments:
            call.arguments.append(arguments)

    def _find_or_start(self, index: Any, call_id: str, name: str, arguments: str) -> PartialToolCall:
        """The call that a delta goes on with. Some services number no call, some number every call 0."""
        if not isinstance(index, int):
            last = self._calls[-1] if self._calls else None
            return last if last and not _is_next_call(last, call_id, name) else self._start_call()
        call = self._calls_by_index.get(index)
        if call is None or (call_id and call.id and call_id != call.id) or (name and _is_new_object(call, arguments)):
            call = self._calls_by_index[index] = self._start_call()
        return call

    def _start_call(self) -> PartialToolCall:
        if len(self._calls) == MAX_CALLS:
            sentence = "The model asked for too many tools at once. Ask for less in one step."
            raise Fault(LLMInvalidAnswer(sentence), "too many tool calls", is_retryable=False)
        self._calls.append(PartialToolCall())
        return self._calls[-1]


def _is_next_call(last: PartialToolCall, call_id: str, name: str) -> bool:
    if call_id and last.id:
        return call_id != last.id
    return bool(name and last.name)


def _is_new_object(call: PartialToolCall, arguments: str) -> bool:
    """Whether they begin anew after an object: two calls of one number and id, not one whose name is said again."""
    return bool(call.arguments) and call.arguments[-1].rstrip().endswith("}") and arguments.lstrip().startswith("{")


def _encode_arguments(arguments: Any) -> str:
    return "" if arguments is None else arguments if isinstance(arguments, str) else json.dumps(arguments)


def _coerce_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def parse_arguments(raw: str) -> dict[str, Any] | None:
    """None unless it is a JSON object. Nothing at all is one, and so is one with bare newlines in its strings."""
    try:
        value = json.loads(raw, strict=False) if raw.strip() else {}
    except (ValueError, RecursionError):
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) and not is_deeper_than(MAX_DEPTH, value) else None


def quote_arguments(raw: str) -> str:
    """langchain repairs half JSON when chunks are added up, in quadratic time, and half a call must never run.

    As a JSON string it stays what it is; what is short and cannot be taken for an object stays as the model wrote it.
    """
    return json.dumps(raw) if len(raw) > 200 or raw.lstrip().startswith("{") else raw
