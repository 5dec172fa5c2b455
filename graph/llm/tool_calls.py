"""Assemble the tool calls of one answer from the pieces that the service sends."""

import json
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import InvalidToolCall, ToolCall
from langchain_core.messages.tool import invalid_tool_call, tool_call

from graph.errors import LLMInvalidAnswer
from graph.llm.faults import Fault
from graph.sanitize import is_deeper_than, sanitize_value

MAX_CALLS = 128
"""Tool calls of one answer. Bounds what one answer can start; chosen, not measured."""
MAX_DEPTH = 64
"""Levels of objects and lists in arguments: recursive code has stack enough for them. Chosen, not measured."""
MAX_PLAIN_ARGUMENTS = 200
"""Characters of broken arguments that are kept as the model wrote them. Chosen, not measured: a text this short costs
LangChain no time, and a refusal quotes as many to the model."""


@dataclass
class PartialToolCall:
    id: str | None = None
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ToolCallAssembler:
    """The tool calls of one answer so far."""

    def __init__(self) -> None:
        self._calls: list[PartialToolCall] = []
        self._calls_by_index: dict[int, PartialToolCall] = {}

    def add_parts(self, parts: Any, is_complete: bool) -> None:
        """Add the value of `tool_calls`: of a message, where each part is a whole call, or of a delta."""
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._add_part(part, is_complete)

    def build_calls(self) -> tuple[list[ToolCall], list[InvalidToolCall]]:
        """Return the calls whose arguments are a JSON object, and the others."""
        valid: list[ToolCall] = []
        invalid: list[InvalidToolCall] = []
        for call in self._calls:
            raw = "".join(call.arguments)
            arguments = parse_arguments(raw)
            if arguments is not None:
                valid.append(tool_call(name=call.name, args=arguments, id=call.id))
            else:
                error = "The arguments are not a JSON object."
                invalid.append(
                    invalid_tool_call(
                        name=call.name, args=quote_arguments(sanitize_value(raw)), id=call.id, error=error
                    )
                )
        return valid, invalid

    def _add_part(self, part: dict[str, Any], is_complete: bool) -> None:
        value = part.get("function")
        function: dict[str, Any] = value if isinstance(value, dict) else {}
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
        """Return the call that a delta continues, or a new one. Some services number no call, some every call 0."""
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
    """Return whether the arguments begin a second object.

    It shows two calls of the same number and id. A service that only repeats the name sends no second object.
    """
    return bool(call.arguments) and call.arguments[-1].rstrip().endswith("}") and arguments.lstrip().startswith("{")


def _encode_arguments(arguments: Any) -> str:
    return "" if arguments is None else arguments if isinstance(arguments, str) else json.dumps(arguments)


def _coerce_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def parse_arguments(raw: str) -> dict[str, Any] | None:
    """Return the arguments, or None if the text is not a JSON object or nested too deeply.

    An empty text and `null` are an empty object. Bare newlines in strings are accepted.
    """
    try:
        value = json.loads(raw, strict=False) if raw.strip() else {}
    except (ValueError, RecursionError):
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) and not is_deeper_than(MAX_DEPTH, value) else None


def quote_arguments(raw: str) -> str:
    """Return broken arguments in a form that LangChain does not repair.

    LangChain completes half JSON when it adds up chunks, in quadratic time; half a call must never run. A JSON string
    stays as it is. A short text that cannot be taken for an object needs no quotes.
    """
    return json.dumps(raw) if len(raw) > MAX_PLAIN_ARGUMENTS or raw.lstrip().startswith("{") else raw
