"""Read and write the messages of a conversation."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from typing_extensions import Unpack

from graph import wire
from graph.marks import (
    MalformedReason,
    ServiceMarks,
    is_aside,
    mark_malformed,
    mark_refused,
    mark_rejected,
    question_of,
    turn_start_marks,
)
from graph.state import CallGate, State, current_agent
from policy.grants import propose_pattern


def open_calls(state: State) -> list[RequestedCall]:
    """Return the tool calls that have no answer yet, in the order in which the model made them."""
    answered: set[str] = set()
    for message in reversed(state.get("messages", [])):
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        else:
            calls = message.tool_calls if isinstance(message, AIMessage) else []
            return [call for call in calls if call["id"] not in answered]
    return []


def pending_calls(state: State) -> list[wire.ToolCall]:
    """Return the open calls that a client has to act on."""
    gates = state.get("gates", {})
    return [to_wire_call(call, gates[call["id"] or ""]) for call in open_calls(state) if call["id"] in gates]


def to_wire_call(call: RequestedCall, gate: CallGate) -> wire.ToolCall:
    return wire.ToolCall(
        call_id=call["id"] or "",
        tool_name=call["name"],
        arguments=call["args"],
        requires_approval=gate["status"] == "ask",
        metadata=_build_call_metadata(call, gate),
    )


def _build_call_metadata(call: RequestedCall, gate: CallGate) -> dict[str, Any] | None:
    """Return the rule and the reason of the gate's decision, or None for a call that cannot change anything.

    For a call that needs approval, add the warning and the pattern by which an approval can be remembered.
    For a call that was auto-approved, add the policy or the grant that approved it.
    """
    metadata: dict[str, Any] = {"rule": gate["rule"], "reason": gate["reason"]}
    if gate["status"] != "ask":
        return {**metadata, "passed_by": gate["passed"]} if "passed" in gate else None
    if "warning" in gate:
        metadata["warning"] = gate["warning"]
    pattern = None if gate.get("always_asks") else propose_pattern(call["name"], call["args"])
    return {**metadata, "remember": {"pattern": pattern}} if pattern else metadata


def tool_message(call: RequestedCall, content: str, *, error: bool = False) -> ToolMessage:
    return ToolMessage(
        content, tool_call_id=call["id"] or "", name=call["name"], status="error" if error else "success"
    )


def rejection_message(call: RequestedCall, content: str) -> ToolMessage:
    """Return the answer to a call that the user rejected."""
    return mark_rejected(tool_message(call, content, error=True))


def refusal_message(call: RequestedCall, content: str) -> ToolMessage:
    """Return the answer to a call that the service refused. Such a call never left the service."""
    return mark_refused(tool_message(call, content, error=True))


def malformed_message(call: RequestedCall, content: str, reason: MalformedReason) -> ToolMessage:
    """Return the answer to a call that was no valid call, so that the service refused it."""
    return mark_malformed(tool_message(call, content, error=True), reason)


def human_message(content: str, state: State, run_id: str) -> HumanMessage:
    """Return a message of the user that carries the state before it, so that an undo reads no older checkpoint."""
    marks = turn_start_marks(run_id, current_agent(state), len(state.get("switches", [])))
    return HumanMessage(content, additional_kwargs=marks)


def service_message(text: str, *, calls: Sequence[RequestedCall] = (), **marks: Unpack[ServiceMarks]) -> AIMessage:
    """Return a message that the service writes in the agent's place."""
    return AIMessage(text, id=f"msg_{uuid4().hex}", tool_calls=[*calls], additional_kwargs=dict(marks))


def pending_service_question(state: State) -> AIMessage | None:
    """Return the last message if it is a question of the service, answered or not, and nobody wrote one after it."""
    last = next((m for m in reversed(state.get("messages", [])) if not isinstance(m, ToolMessage)), None)
    return last if isinstance(last, AIMessage) and question_of(last) else None


def without_asides(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """Return the messages without the asides, their calls and the answers to those."""
    asides = [message for message in messages if is_aside(message)]
    if not asides:
        return messages
    left_out = {call["id"] for message in asides if isinstance(message, AIMessage) for call in message.tool_calls}
    left_out |= {message.id for message in asides}
    return [m for m in messages if (m.tool_call_id if isinstance(m, ToolMessage) else m.id) not in left_out]


def starts_step(message: AnyMessage) -> bool:
    """Return True for a message of the user or of a model: not for a tool message, not for an aside."""
    return message.type != "tool" and not is_aside(message)


def current_turn(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """Return the messages after the user's last one."""
    return messages[next((n for n in range(len(messages), 0, -1) if messages[n - 1].type == "human"), 0) :]


def last_request(state: State) -> str:
    """Return the text of the user's last message; empty if there is none."""
    return next((str(m.content) for m in reversed(state.get("messages", [])) if isinstance(m, HumanMessage)), "")
