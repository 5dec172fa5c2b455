"""Assemble the tool calls of one answer from the pieces that the service sends."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from langchain_core.messages import InvalidToolCall, ToolCall
from langchain_core.messages.tool import invalid_tool_call, tool_call

from graph.errors import LLMInvalidAnswer
from graph.llm.faults import Fault
from graph.llm.provider_fields import FieldEncoder, get_call_fields, join_pieces
from graph.sanitize import sanitize_value
from graph.tools.coercion import parse_arguments

MAX_CALLS = 128
"""Tool calls of one answer. Bounds what one answer can start; chosen, not measured."""
MAX_PLAIN_ARGUMENTS = 200
"""Characters of broken arguments that are kept as the model wrote them. Chosen, not measured: a text this short costs
LangChain no time, and a refusal quotes as many to the model."""


@dataclass
class PartialToolCall:
    """A call so far, or a part of one."""

    id: str | None = None
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    fields: list[dict[str, Any]] = field(default_factory=list)
    """The fields that only the provider reads, in pieces."""
    index: int | None = None
    """The number of a part's call, if the service numbers the calls."""

    def read_arguments(self) -> dict[str, Any] | None:
        return parse_arguments("".join(self.arguments))


class BuiltCalls(NamedTuple):
    """The calls of an answer. LangChain wants those with unreadable arguments apart."""

    valid: list[ToolCall]
    invalid: list[InvalidToolCall]
    fields: list[str]
    """Of each call, first of the valid ones: the fields that only its provider reads, as a JSON object."""
    places: list[int]
    """The place of each call in the answer, first of the valid ones."""


class ToolCallAssembler:
    """The tool calls of one answer so far."""

    def __init__(self) -> None:
        self._calls: list[PartialToolCall] = []
        self._calls_by_index: dict[tuple[int, int], PartialToolCall] = {}

    def add_parts(self, parts: Any, choice: int = 0) -> None:
        """Add the value of `tool_calls` of a delta: each part begins or continues a call of the choice."""
        for part in _read_parts(parts):
            call = self._find_or_start(part, choice)
            call.id = call.id or part.id
            call.name = _join_names(call, part)
            call.arguments += part.arguments
            call.fields += part.fields

    def add_whole(self, parts: Any) -> None:
        """Add the value of `tool_calls` of a message: each part is a whole call. A known call is not added again."""
        known = [*self._calls]
        for part in _read_parts(parts):
            call = next((call for call in known if _is_same_call(call, part)), None)
            if call is None:
                self._start_call(part)
                continue
            call.fields = call.fields or part.fields
            if not call.read_arguments():
                call.arguments = part.arguments or call.arguments

    def build_calls(self, encoder: FieldEncoder) -> BuiltCalls:
        valid: list[ToolCall] = []
        invalid: list[InvalidToolCall] = []
        fields: list[str] = []
        places: list[int] = []
        for place, call in enumerate(self._calls):
            call_id = encoder.keep_id(call.id)
            call_fields = encoder.encode(join_pieces(call.fields))
            raw = "".join(call.arguments)
            arguments = parse_arguments(raw)
            if arguments is not None:
                fields.insert(len(valid), call_fields)
                places.insert(len(valid), place)
                valid.append(tool_call(name=call.name, args=arguments, id=call_id))
            else:
                fields.append(call_fields)
                places.append(place)
                error = "The arguments are not a JSON object."
                invalid.append(
                    invalid_tool_call(
                        name=call.name, args=quote_arguments(sanitize_value(raw)), id=call_id, error=error
                    )
                )
        return BuiltCalls(valid, invalid, fields, places)

    def _find_or_start(self, part: PartialToolCall, choice: int) -> PartialToolCall:
        """Return the call that a delta continues, or a new one. Some services number no call, some every call 0."""
        if part.index is None:
            last = self._calls[-1] if self._calls else None
            return last if last and not _is_next_call(last, part) else self._start_call()
        call = self._calls_by_index.get((choice, part.index))
        if call is None or (part.id and call.id and part.id != call.id) or (part.name and _is_new_object(call, part)):
            call = self._calls_by_index[choice, part.index] = self._start_call()
        return call

    def _start_call(self, call: PartialToolCall | None = None) -> PartialToolCall:
        if len(self._calls) == MAX_CALLS:
            sentence = "The model asked for too many tools at once. Ask for less in one step."
            raise Fault(LLMInvalidAnswer(sentence), "too many tool calls", is_retryable=False)
        self._calls.append(call or PartialToolCall())
        return self._calls[-1]


def _read_parts(parts: Any) -> Iterator[PartialToolCall]:
    for part in parts if isinstance(parts, list) else [parts]:
        if isinstance(part, dict):
            part = part if isinstance(part.get("function"), dict) else _nest_function(part)
            function = part["function"]
            arguments = _encode_arguments(function.get("arguments"))
            yield PartialToolCall(
                id=_coerce_text(part.get("id")) or None,
                name=_coerce_text(function.get("name")),
                arguments=[arguments] if arguments else [],
                fields=get_call_fields(part, function),
                index=index if isinstance(index := part.get("index"), int) else None,
            )


def _nest_function(part: dict[str, Any]) -> dict[str, Any]:
    """Return a call that has name and arguments beside its id in the usual form, with a `function` around them."""
    function = {name: part[name] for name in ("name", "arguments") if name in part}
    return {**{name: value for name, value in part.items() if name not in function}, "function": function}


def _is_same_call(call: PartialToolCall, other: PartialToolCall) -> bool:
    """Return whether two whole calls are one. A service may repeat a call with another id, or with none."""
    if call.id and call.id == other.id:
        return True
    return call.name == other.name and call.read_arguments() == other.read_arguments()


def _is_next_call(last: PartialToolCall, part: PartialToolCall) -> bool:
    """Return whether a part without an index begins a call. Some services repeat the name with each part."""
    if part.id and last.id:
        return part.id != last.id
    return bool(part.name and last.name) and (part.name != last.name or _is_new_object(last, part))


def _is_new_object(call: PartialToolCall, part: PartialToolCall) -> bool:
    """Return whether the arguments begin a second object.

    It shows two calls of the same number and id. A service that only repeats the name sends no second object.
    """
    return (
        bool(call.arguments and part.arguments)
        and call.arguments[-1].rstrip().endswith("}")
        and part.arguments[0].lstrip().startswith("{")
    )


def _join_names(call: PartialToolCall, part: PartialToolCall) -> str:
    """Return the name with the part's. A service sends it once, with each part, growing, or in pieces."""
    if part.name.startswith(call.name):
        return part.name
    return call.name if call.arguments or not part.name else call.name + part.name


def _encode_arguments(arguments: Any) -> str:
    return "" if arguments is None else arguments if isinstance(arguments, str) else json.dumps(arguments)


def _coerce_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def quote_arguments(raw: str) -> str:
    """Return broken arguments in a form that LangChain does not repair.

    LangChain completes half JSON when it adds up chunks, in quadratic time; half a call must never run. A JSON string
    stays as it is. A short text that cannot be taken for an object needs no quotes.
    """
    return json.dumps(raw) if len(raw) > MAX_PLAIN_ARGUMENTS or raw.lstrip().startswith("{") else raw
