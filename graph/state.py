"""What flows through the graph. Whatever can be read off the messages is not stored a second time."""

from collections.abc import Sequence
from datetime import UTC, datetime
from operator import add
from typing import Annotated, Any, Literal, NotRequired
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from graph import wire
from policy.grants import proposal
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


def open_calls(state: State) -> list[RequestedCall]:
    """The tool calls that wait for their answer, in the order the model made them."""
    answered: set[str] = set()
    for message in reversed(state.get("messages", [])):
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        else:
            calls = message.tool_calls if isinstance(message, AIMessage) else []
            return [call for call in calls if call["id"] not in answered]
    return []


def pending_calls(state: State) -> list[wire.ToolCall]:
    """The open calls that a client has to act on."""
    gates = state.get("gates", {})
    return [to_wire(call, gates[call["id"] or ""]) for call in open_calls(state) if call["id"] in gates]


def to_wire(call: RequestedCall, gate: Gate) -> wire.ToolCall:
    return wire.ToolCall(
        call_id=call["id"] or "",
        tool_name=call["name"],
        arguments=call["args"],
        requires_approval=gate["status"] == "ask",
        metadata=_about(call, gate),
    )


def _about(call: RequestedCall, gate: Gate) -> dict[str, Any] | None:
    """Why it asks, and how the answer could be remembered; or why it passed unasked. Nothing of what is harmless."""
    about: dict[str, Any] = {"rule": gate["rule"], "reason": gate["reason"]}
    if gate["status"] != "ask":
        return {**about, "passed_by": gate["passed"]} if "passed" in gate else None
    if "warning" in gate:
        about["warning"] = gate["warning"]
    pattern = None if gate.get("always_asks") else proposal(call["name"], call["args"])
    return {**about, "remember": {"pattern": pattern}} if pattern else about


def answer(call: RequestedCall, content: str, *, error: bool = False) -> ToolMessage:
    return ToolMessage(
        content, tool_call_id=call["id"] or "", name=call["name"], status="error" if error else "success"
    )


def rejection(call: RequestedCall, content: str) -> ToolMessage:
    """The answer to a call that the user refused, marked where no text of a client can be."""
    return answer(call, content, error=True).model_copy(update={"additional_kwargs": {"rejected": True}})


def refusal(call: RequestedCall, content: str) -> ToolMessage:
    """The answer to a call that never left the service."""
    return answer(call, content, error=True).model_copy(update={"additional_kwargs": {"refused": True}})


def rejected(state: State, call: RequestedCall) -> str | None:
    """What the model was told when the user rejected the same call in this turn."""
    told: dict[str, str] = {}
    for message in reversed(state["messages"]):
        match message:
            case HumanMessage():
                break
            case ToolMessage(additional_kwargs={"rejected": True}):
                told[message.tool_call_id] = str(message.content)
            case AIMessage():
                for earlier in message.tool_calls:
                    if earlier["id"] in told and (earlier["name"], earlier["args"]) == (call["name"], call["args"]):
                        return told[earlier["id"]]
    return None


def said(content: str, state: State, run_id: str) -> HumanMessage:
    """What the user said, with what it found: whoever takes it back needs no older checkpoint for that."""
    found = {"run": run_id, "agent": holder(state), "switches": len(state.get("switches", []))}
    return HumanMessage(content, additional_kwargs={"found": found})


def thread_of(config: RunnableConfig) -> str:
    """Empty for a graph that runs without a checkpointer."""
    return str((config.get("configurable") or {}).get("thread_id") or "")


def own(text: str, *, calls: Sequence[RequestedCall] = (), **about: Any) -> AIMessage:
    """What the service says in the agent's place, marked where no text of a model can be."""
    return AIMessage(text, id=f"msg_{uuid4().hex}", tool_calls=[*calls], additional_kwargs=about)


def own_question(state: State) -> AIMessage | None:
    """What the service asked its user as if it were a tool's approval, if nothing was said since; answered or not."""
    said = next((m for m in reversed(state.get("messages", [])) if not isinstance(m, ToolMessage)), None)
    return said if isinstance(said, AIMessage) and "question" in said.additional_kwargs else None


def for_model(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """Without what is between the service and its user."""
    asides = [message for message in messages if "aside" in message.additional_kwargs]
    if not asides:
        return messages
    left_out = {call["id"] for message in asides if isinstance(message, AIMessage) for call in message.tool_calls}
    left_out |= {message.id for message in asides}
    return [m for m in messages if (m.tool_call_id if isinstance(m, ToolMessage) else m.id) not in left_out]


def begins_a_step(message: AnyMessage) -> bool:
    """Not an answer to a call, nor what is between the service and its user."""
    return message.type != "tool" and "aside" not in message.additional_kwargs


def holder(state: State) -> str:
    return state.get("agent") or ORCHESTRATOR


def hand_over(before: str, to: str, reason: str, **how: str) -> tuple[list[Switch], wire.AgentSwitched]:
    """The record of a hand-off, and what the client is told of it."""
    switch: Switch = {"from": before, "to": to, "reason": reason, "timestamp": now()}
    return [switch] if before != to else [], announcement(switch, **how)


def announcement(switch: Switch, **how: str) -> wire.AgentSwitched:
    about = {"from_agent": switch["from"], "to_agent": switch["to"], "reason": switch["reason"], **how}
    return wire.AgentSwitched(content=f"Switched to {switch['to']} agent", metadata=about)


def last_request(state: State) -> str:
    """What the user said last."""
    return next((str(m.content) for m in reversed(state.get("messages", [])) if isinstance(m, HumanMessage)), "")


def now() -> str:
    """ISO 8601 in UTC, always of the same length."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
