"""The state of the graph. What can be derived from the messages is not stored a second time."""

from collections.abc import Sequence
from operator import add
from typing import Annotated, Any, Literal, NotRequired

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from graph import wire
from graph.timestamps import utc_timestamp
from prompts import ORCHESTRATOR


def merge_messages(
    messages: list[AnyMessage], writes: Sequence[Sequence[AnyMessage | dict[str, Any]]]
) -> list[AnyMessage]:
    """Append; an assistant message with the id of one of the current turn takes its place."""
    merged = [*map(convert_to_message, messages)] if messages and isinstance(messages[0], dict) else list(messages)
    for message in (convert_to_message(given) for write in writes for given in write):
        place = _find_insert_position(merged, message)
        merged[place : place + 1] = [message]
    return merged


def convert_to_message(value: AnyMessage | dict[str, Any]) -> AnyMessage:
    """A LangGraph server hands messages on as JSON: to those who read a thread, and as they changed it."""
    return _MESSAGE_ADAPTER.validate_python(value) if isinstance(value, dict) else value


_MESSAGE_ADAPTER: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)


def _find_insert_position(messages: list[AnyMessage], message: AnyMessage) -> int:
    if isinstance(message, AIMessage) and message.id:
        for index in range(len(messages) - 1, -1, -1):
            if messages[index].id == message.id:
                return index
            if isinstance(messages[index], HumanMessage):
                break
    return len(messages)


HandoffRecord = TypedDict("HandoffRecord", {"from": str, "to": str, "reason": str, "timestamp": str})
"""A hand-off, as `agent_history` shows it."""


class CallGate(TypedDict):
    """Where an open call stands."""

    status: Literal["local", "ask", "approved", "edited", "sent"]
    """For the service to answer; for a human to decide; decided, not yet sent; with the IDE."""
    agent: str
    rule: str
    reason: str
    created_at: str
    arguments: NotRequired[dict[str, Any]]
    """With status edited: what the user made of them."""
    was_edited: NotRequired[bool]
    passed: NotRequired[Literal["policy", "grant"]]
    """What agreed in the user's place to a call that may change something."""
    always_asks: NotRequired[bool]
    """Whether the user's agreement cannot be remembered."""
    warning: NotRequired[str]


class UsageAmount(TypedDict):
    """Of model calls. `calls` are those that answered as a specialist; `money` is exact."""

    calls: int
    tokens: int
    money: str


class ThreadUsage(TypedDict):
    """What a thread's model calls used, for its budgets: since the user's last message, and ever."""

    turn: UsageAmount
    session: UsageAmount
    agreed: list[str]
    """The budgets beyond whose warning the user let it go."""


ZERO_AMOUNT = UsageAmount(calls=0, tokens=0, money="0")

ZERO_USAGE = ThreadUsage(turn=ZERO_AMOUNT, session=ZERO_AMOUNT, agreed=[])


class WindowState(TypedDict):
    """What the model gets of the conversation; places in `messages`."""

    summary: str
    upto: int
    """Up to where the summary tells it."""
    start: int
    """From where on messages are sent; what lies between is left out, until a summary tells it."""
    short: int
    """Up to where tool results are sent shortened."""


INITIAL_WINDOW = WindowState(summary="", upto=0, start=0, short=0)


class Input(TypedDict):
    """What starts a turn: the Gateway's own `user_message` or `switch_agent`."""

    message: wire.UserMessage | wire.SwitchAgent | dict[str, Any] | None


class State(Input):
    messages: Annotated[list[AnyMessage], DeltaChannel(merge_messages, snapshot_frequency=2_000)]
    switches: Annotated[list[HandoffRecord], add]
    """Not a DeltaChannel: it changes seldom, and a load reads all checkpoints back to a channel's last snapshot."""
    agent: str
    """Who holds the conversation."""
    gates: dict[str, CallGate]
    """Of the open calls, by call id."""
    memory: WindowState
    ended: bool
    """Nothing is left to do until the user's next message."""
    spent: NotRequired[ThreadUsage]
    """Undoing gives nothing back."""


def get_thread_id(config: RunnableConfig) -> str:
    """Empty for a graph that runs without a checkpointer."""
    return str((config.get("configurable") or {}).get("thread_id") or "")


def current_agent(state: State) -> str:
    return state.get("agent") or ORCHESTRATOR


def handoff(before: str, to: str, reason: str, **metadata: str) -> tuple[list[HandoffRecord], wire.AgentSwitched]:
    """The record of a hand-off, and what the client is told of it."""
    switch: HandoffRecord = {"from": before, "to": to, "reason": reason, "timestamp": utc_timestamp()}
    return [switch] if before != to else [], handoff_chunk(switch, **metadata)


def handoff_chunk(switch: HandoffRecord, **metadata: str) -> wire.AgentSwitched:
    about = {"from_agent": switch["from"], "to_agent": switch["to"], "reason": switch["reason"], **metadata}
    return wire.AgentSwitched(content=f"Switched to {switch['to']} agent", metadata=about)
