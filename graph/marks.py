"""The marks in a message's `additional_kwargs`.

The service writes a mark where no text of a client or a model can put one. Checkpoints hold the keys and the values,
so neither may change.
"""

from typing import Any, Final, Literal

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from typing_extensions import TypedDict

REJECTED: Final = "rejected"
"""On a tool message: the user rejected the call. The value is True."""
REFUSED: Final = "refused"
"""On a tool message: the service refused the call, which never left it. The value is True."""
MALFORMED: Final = "malformed"
"""On a refused tool message: the call was no valid call. The value is the `MalformedReason`."""
TURN_START: Final = "found"
"""On a user message: the `TurnStart`. Messages of versions before the undo lack it."""
ASIDE: Final = "aside"
"""On an assistant message: it is between the service and its user, and no model sees it. The value is True."""
QUESTION: Final = "question"
"""On an assistant message: the `ServiceQuestion` that it puts to the user."""
TRUNCATED: Final = "truncated"
"""On an assistant message of a model: its text was cut off. The value is the `TruncationReason`."""
CHUNK_METADATA: Final = "told"
"""On an assistant message of the service: the metadata of the chunk that the client received for it."""

PROVIDER: Final = "provider"
"""On an assistant message: the `ProviderData`. No client sees it."""


class ProviderData(TypedDict):
    """The parts of an answer that go back to the model that gave it, unchanged, and to no other.

    Values are JSON text: databases refuse some characters that JSON can have. Empty: there is nothing.
    """

    model: str
    """The name of the model, as requests name it."""
    fields: str
    """The fields of the message."""
    calls: dict[str, str]
    """Of each call, by its id: the provider's own id, if it is another one, and the fields of the call."""


TruncationReason = Literal["length", "content_filter"]
"""length: the answer reached a limit. content_filter: the model's service stopped it for what it says."""
MalformedReason = Literal["unreadable", "invalid", "length", "content_filter"]
"""unreadable: the arguments are no JSON object. invalid: there is no such tool, or its arguments are not valid.
length, content_filter: the answer was cut off, so that the call may be incomplete."""


class TurnStart(TypedDict, total=False):
    """The run of a user message, and the state that the message met. An undo restores this state.

    A message of an older version has none of the keys; every other message has them all.
    """

    run: str
    """The id of the run, empty outside the service."""
    agent: str
    """The current agent before the message."""
    switches: int
    """The number of hand-offs before the message."""


class ServiceQuestion(TypedDict):
    """A question of the service to its user: a tool call that needs approval, or a text at the end of a turn."""

    rule: str
    """The id that the approval and its audit entry show as their rule."""
    reason: str
    """The sentence that the user reads."""
    budgets: list[str]
    """The keys of the budgets whose warnings an approval accepts, see `Budget.key`."""


class ServiceMarks(TypedDict, total=False):
    """The marks of an assistant message that the service writes in the agent's place. The fields are the keys."""

    aside: bool
    question: ServiceQuestion
    told: dict[str, Any]


def mark_rejected(message: ToolMessage) -> ToolMessage:
    return message.model_copy(update={"additional_kwargs": {REJECTED: True}})


def mark_refused(message: ToolMessage) -> ToolMessage:
    return message.model_copy(update={"additional_kwargs": {REFUSED: True}})


def mark_malformed(message: ToolMessage, reason: MalformedReason) -> ToolMessage:
    return message.model_copy(update={"additional_kwargs": {REFUSED: True, MALFORMED: reason}})


def mark_truncated(message: AIMessage, reason: TruncationReason) -> AIMessage:
    return message.model_copy(update={"additional_kwargs": {**message.additional_kwargs, TRUNCATED: reason}})


def turn_start_marks(run_id: str, agent: str, switch_count: int) -> dict[str, TurnStart]:
    """Return the `additional_kwargs` of a new user message."""
    return {TURN_START: {"run": run_id, "agent": agent, "switches": switch_count}}


def is_rejected(message: AnyMessage) -> bool:
    return REJECTED in message.additional_kwargs


def is_refused(message: AnyMessage) -> bool:
    return REFUSED in message.additional_kwargs


def malformed_reason_of(message: AnyMessage) -> MalformedReason | None:
    """Return the mark of a tool message. Messages of older versions have none."""
    reason: MalformedReason | None = message.additional_kwargs.get(MALFORMED)
    return reason


def is_aside(message: AnyMessage) -> bool:
    return ASIDE in message.additional_kwargs


def turn_start_of(message: AnyMessage) -> TurnStart:
    """Return the mark of a user message; empty for a message of an older version."""
    turn_start: TurnStart = message.additional_kwargs.get(TURN_START, {})
    return turn_start


def question_of(message: AIMessage) -> ServiceQuestion | None:
    return message.additional_kwargs.get(QUESTION)


def truncation_of(message: AIMessage) -> TruncationReason | None:
    reason: TruncationReason | None = message.additional_kwargs.get(TRUNCATED)
    return reason


def chunk_metadata_of(message: AIMessage) -> dict[str, Any] | None:
    """Return the metadata of the chunk that a client received for a message, if it has any."""
    reason = truncation_of(message)
    return {"truncated": reason} if reason else message.additional_kwargs.get(CHUNK_METADATA)


def provider_data_of(message: AIMessage) -> ProviderData | None:
    return message.additional_kwargs.get(PROVIDER)
