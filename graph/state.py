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
from graph.timestamps import now
from prompts import ORCHESTRATOR


def merge(messages: list[AnyMessage], writes: Sequence[Sequence[AnyMessage | dict[str, Any]]]) -> list[AnyMessage]:
    """Append; an assistant message with the id of one of the current turn takes its place."""
    merged = [*map(as_message, messages)] if messages and isinstance(messages[0], dict) else list(messages)
    for message in (as_message(given) for write in writes for given in write):
        place = _place(merged, message)
        merged[place : place + 1] = [message]
    return merged


def as_message(given: AnyMessage | dict[str, Any]) -> AnyMessage:
    """A LangGraph server hands messages on as JSON: to those who read a thread, and as they changed it."""
    return _MESSAGE.validate_python(given) if isinstance(given, dict) else given


_MESSAGE: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)


def _place(messages: list[AnyMessage], message: AnyMessage) -> int:
    if isinstance(message, AIMessage) and message.id:
        for index in range(len(messages) - 1, -1, -1):
            if messages[index].id == message.id:
                return index
            if isinstance(messages[index], HumanMessage):
                break
    return len(messages)


Switch = TypedDict("Switch", {"from": str, "to": str, "reason": str, "timestamp": str})
"""A hand-off, as `agent_history` shows it."""


class Gate(TypedDict):
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


class Amount(TypedDict):
    """Of model calls. `calls` are those that answered as a specialist; `money` is exact."""

    calls: int
    tokens: int
    money: str


class Spent(TypedDict):
    """What a thread's model calls used, for its budgets: since the user's last message, and ever."""

    turn: Amount
    session: Amount
    agreed: list[str]
    """The budgets beyond whose warning the user let it go."""


NOTHING = Amount(calls=0, tokens=0, money="0")

NOTHING_SPENT = Spent(turn=NOTHING, session=NOTHING, agreed=[])


class Memory(TypedDict):
    """What the model gets of the conversation; places in `messages`."""

    summary: str
    upto: int
    """Up to where the summary tells it."""
    start: int
    """From where on messages are sent; what lies between is left out, until a summary tells it."""
    short: int
    """Up to where tool results are sent shortened."""


FRESH = Memory(summary="", upto=0, start=0, short=0)


class Inbox(TypedDict):
    """What starts a turn: the Gateway's own `user_message` or `switch_agent`."""

    message: wire.UserMessage | wire.SwitchAgent | dict[str, Any] | None


class State(Inbox):
    messages: Annotated[list[AnyMessage], DeltaChannel(merge, snapshot_frequency=2_000)]
    switches: Annotated[list[Switch], add]
    """Not a DeltaChannel: it changes seldom, and a load reads all checkpoints back to a channel's last snapshot."""
    agent: str
    """Who holds the conversation."""
    gates: dict[str, Gate]
    """Of the open calls, by call id."""
    memory: Memory
    ended: bool
    """Nothing is left to do until the user's next message."""
    spent: NotRequired[Spent]
    """Undoing gives nothing back."""


def thread_of(config: RunnableConfig) -> str:
    """Empty for a graph that runs without a checkpointer."""
    return str((config.get("configurable") or {}).get("thread_id") or "")


def holder(state: State) -> str:
    return state.get("agent") or ORCHESTRATOR


def hand_over(before: str, to: str, reason: str, **how: str) -> tuple[list[Switch], wire.AgentSwitched]:
    """The record of a hand-off, and what the client is told of it."""
    switch: Switch = {"from": before, "to": to, "reason": reason, "timestamp": now()}
    return [switch] if before != to else [], announcement(switch, **how)


def announcement(switch: Switch, **how: str) -> wire.AgentSwitched:
    about = {"from_agent": switch["from"], "to_agent": switch["to"], "reason": switch["reason"], **how}
    return wire.AgentSwitched(content=f"Switched to {switch['to']} agent", metadata=about)
