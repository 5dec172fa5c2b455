"""Parse the input of a client. An error names the field to change and repeats nothing of the input."""

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
    """Return the parsed message. Raises InvalidMessage or InvalidDecision, which name the field to change."""
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        kind, field = (*first["loc"][:2], "", "")[:2]
        decision = kind == "hitl_decision" and field != "call_id"
        raise (InvalidDecision if decision else InvalidMessage)(_describe_fault(first)) from None


def _describe_fault(fault: ErrorDetails) -> str:
    if fault["type"] == "union_tag_invalid":
        return f"The message's type is not allowed here. Send {fault['ctx']['expected_tags'].replace(chr(39), '')}."
    if fault["type"] == "union_tag_not_found":
        return "The message has no type. Send user_message, switch_agent, tool_result or hitl_decision."
    where = ".".join(str(part) for part in fault["loc"] if part in _FIELD_NAMES)
    text = fault["msg"].removeprefix("Value error, ")
    return f"The message is not valid: {where}: {text}." if where else f"The message is not valid: {text}."


_FIELD_NAMES = {
    name
    for model in (UserMessage, SwitchAgent, ToolResult, HitlDecision, Remember, StreamOptions)
    for name in model.model_fields
}
"""The names that an error may repeat. Any other part of a fault's location is a key that the client chose."""


def validate_idempotency_key(key: str) -> str | None:
    """Return the `Idempotency-Key`, or None for an empty one. Raises InvalidMessage."""
    if key and not re.fullmatch(ID_PATTERN, key):
        raise InvalidMessage(f"The message is not valid: Idempotency-Key should match {ID_PATTERN}.")
    return key or None
