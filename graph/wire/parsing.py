"""Parse what a client sent; the error names what to change and repeats nothing of the input."""

import re
from typing import Any, TypeVar

from pydantic import (
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails

from graph.errors import InvalidDecision, InvalidMessage
from graph.wire.messages import ID_PATTERN, HitlDecision, Remember, StreamOptions, SwitchAgent, ToolResult, UserMessage

T = TypeVar("T")


def parse_message(data: Any, adapter: TypeAdapter[T]) -> T:
    """Raises InvalidMessage or InvalidDecision, whose sentence says what to change and repeats nothing of the input."""
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        kind, field = (*first["loc"][:2], "", "")[:2]
        decision = kind == "hitl_decision" and field != "call_id"
        raise (InvalidDecision if decision else InvalidMessage)(_describe_fault(first)) from None


def _describe_fault(fault: ErrorDetails) -> str:
    if fault["type"] == "union_tag_invalid":
        return f"The message's type does not fit here; send {fault['ctx']['expected_tags'].replace(chr(39), '')}."
    if fault["type"] == "union_tag_not_found":
        return "The message has no type; send user_message, switch_agent, tool_result or hitl_decision."
    where = ".".join(str(part) for part in fault["loc"] if part in _FIELD_NAMES)
    said = fault["msg"].removeprefix("Value error, ")
    return f"The message is not valid: {where}: {said}." if where else f"The message is not valid: {said}."


_FIELD_NAMES = {
    name
    for model in (UserMessage, SwitchAgent, ToolResult, HitlDecision, Remember, StreamOptions)
    for name in model.model_fields
}
"""What else stands in the place of a fault is a key that the client chose."""


def validate_idempotency_key(key: str) -> str | None:
    """An `Idempotency-Key`; None for none. Raises InvalidMessage."""
    if key and not re.fullmatch(ID_PATTERN, key):
        raise InvalidMessage(f"The message is not valid: Idempotency-Key should match {ID_PATTERN}.")
    return key or None
