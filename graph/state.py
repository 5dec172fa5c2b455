"""The state of the graph.

Checkpoints hold the names of the channels and of the fields, so they never change. Nothing is stored that the messages
already say.
"""

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
    """Append the writes. An assistant message replaces the one of the same id in the current turn."""
    merged = [*map(convert_to_message, messages)] if messages and isinstance(messages[0], dict) else list(messages)
    for message in (convert_to_message(item) for write in writes for item in write):
        place = _find_insert_position(merged, message)
        merged[place : place + 1] = [message]
    return merged


def convert_to_message(value: AnyMessage | dict[str, Any]) -> AnyMessage:
    """Return the message. A LangGraph server sends messages as JSON, and readers of a thread get them so too."""
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
"""A hand-off. `agent_history` shows the same fields to clients."""


class CallGate(TypedDict):
    """The status of an open call, and the decision of the gate about it."""

    status: Literal["local", "ask", "approved", "edited", "sent"]
    """local: the service answers it. ask: a human must decide. approved, edited: decided, the permission node comes
    next. sent: the IDE has it."""
    agent: str
    """The agent that made the call."""
    rule: str
    """The id of the rule that decided."""
    reason: str
    """The reason, as clients show it."""
    created_at: str
    """The time of the decision, ISO 8601 in UTC."""
    arguments: NotRequired[dict[str, Any]]
    """The arguments that the user changed, with status edited only."""
    was_edited: NotRequired[bool]
    """True: the user edited the arguments."""
    passed: NotRequired[Literal["policy", "grant"]]
    """The reason why a call that may change something was auto-approved."""
    always_asks: NotRequired[bool]
    """True: an approval of this call cannot be remembered."""
    warning: NotRequired[str]
    """A warning that clients show beside the approval."""


class UsageAmount(TypedDict):
    """The usage of some model calls."""

    calls: int
    """Answers of specialists. Classifications and summaries do not count."""
    tokens: int
    money: str
    """The exact cost, as the text of a Decimal."""


class ThreadUsage(TypedDict):
    """The usage of a thread, which its budgets limit."""

    turn: UsageAmount
    """Since the last message of the user."""
    session: UsageAmount
    """Since the session began."""
    agreed: list[str]
    """The keys of the budgets whose warning the user approved, see `Budget.key`."""


ZERO_AMOUNT = UsageAmount(calls=0, tokens=0, money="0")

ZERO_USAGE = ThreadUsage(turn=ZERO_AMOUNT, session=ZERO_AMOUNT, agreed=[])


class WindowState(TypedDict):
    """The part of the conversation that a model is sent. The numbers are indexes into `messages`."""

    summary: str
    """The summary of the messages before `upto`; empty if there is none."""
    upto: int
    """The first message that the summary does not cover."""
    start: int
    """The first message that is sent. Those from `upto` to `start` are left out until a summary covers them."""
    short: int
    """The first message whose tool result is sent whole. Earlier results are sent shortened."""


INITIAL_WINDOW = WindowState(summary="", upto=0, start=0, short=0)


SNAPSHOT_FREQUENCY = 2_000
"""Updates of `messages` between two snapshots of the whole list. A turn makes about four, so this is once in some 500
turns. LangGraph's default of 100 would write the list 20 times as often; a snapshot of 2,000 turns is 8 MB."""


class Input(TypedDict):
    """The input that starts a turn."""

    message: wire.UserMessage | wire.SwitchAgent | dict[str, Any] | None
    """The client's own `user_message` or `switch_agent`, in Studio as a dictionary.

    Written by the client, at START. Reset to None by the orchestrator, in the update that moves its text to `messages`.
    Read by the orchestrator, and by `close_thread` after a run that failed before that. Undo leaves None.
    """


class State(Input):
    messages: Annotated[list[AnyMessage], DeltaChannel(merge_messages, snapshot_frequency=SNAPSHOT_FREQUENCY)]
    """The conversation: user messages, answers of models, messages of the service, and the answers to all calls.

    Written by every node: the orchestrator appends the user's message, a specialist the model's, the others the answers
    to calls; permission replaces a message whose call the user edited. Never reset. Read by every node and by the
    views. Undo cuts the list before the last message of the user.
    """
    switches: Annotated[list[HandoffRecord], add]
    """The hand-offs between agents, oldest first.

    Written by the orchestrator and by local (`switch_mode`), which append. Never reset. Read by clients as
    `agent_history`. Undo cuts the list to its length before the message. A plain list, not a DeltaChannel: it changes
    seldom, and a load would read every checkpoint back to its last snapshot.
    """
    agent: str
    """The name of the agent that has the conversation; missing at first, which means the orchestrator.

    Written by the orchestrator (a choice, a `switch_agent`) and by local (`switch_mode`). Never reset: it stays for the
    next turn. Read by the routers, the nodes and the views. Undo restores the agent before the message.
    """
    gates: dict[str, CallGate]
    """The status of each open call, by call id.

    Written by permission, which keeps open calls only, and by approval and ide when an answer comes. Reset to {} by the
    orchestrator at the start of a turn and by permission when it ends one. Read by the router after permission, by
    local, and by clients as pending calls. Undo resets it to {}.
    """
    memory: WindowState
    """The summary and the window of the conversation; missing until the first move of the window.

    Written by the specialists, from `Summarizer.prepare`. Never reset. Read by the specialists. Undo moves the window
    back, and drops a summary that covers what is undone.
    """
    ended: bool
    """True: the turn is over, and nothing happens until the next message of the user.

    The orchestrator writes False at the start of a turn. It writes True after an error and after a switch without
    content. A specialist writes True for an answer without calls and for an error, permission and local when they end
    the turn. Read by both routers. Undo sets True.
    """
    spent: NotRequired[ThreadUsage]
    """The usage of the model calls; missing in threads of older versions.

    Written by `with_metering` after each node that calls a model, and by local when the user accepts a warning. The
    orchestrator resets `turn` at the start of a turn. Read by the budgets and by the usage view. Undo keeps it: a call
    that was made costs what it costs.
    """


class StateUpdate(TypedDict, total=False):
    """The channels that a node changes. The reducers of `messages` and `switches` append."""

    message: None
    messages: Sequence[AnyMessage]
    switches: Sequence[HandoffRecord]
    agent: str
    gates: dict[str, CallGate]
    memory: WindowState
    ended: bool
    spent: ThreadUsage


def get_thread_id(config: RunnableConfig) -> str:
    """Return the thread's id; empty for a graph that runs without a checkpointer."""
    return str((config.get("configurable") or {}).get("thread_id") or "")


def current_agent(state: State) -> str:
    return state.get("agent") or ORCHESTRATOR


def handoff(before: str, to: str, reason: str, **metadata: str) -> tuple[list[HandoffRecord], wire.AgentSwitched]:
    """Return the record of a hand-off and the chunk that announces it. Without a change there is no record."""
    switch: HandoffRecord = {"from": before, "to": to, "reason": reason, "timestamp": utc_timestamp()}
    return [switch] if before != to else [], handoff_chunk(switch, **metadata)


def handoff_chunk(switch: HandoffRecord, **metadata: str) -> wire.AgentSwitched:
    agents = {"from_agent": switch["from"], "to_agent": switch["to"]}
    metadata = {**agents, "reason": switch["reason"], **metadata}
    return wire.AgentSwitched(content=f"Switched to {switch['to']} agent", metadata=metadata)
