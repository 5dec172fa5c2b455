"""Read and write the messages of a conversation."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall

from graph import wire
from graph.state import CallGate, State, current_agent
from policy.grants import propose_pattern


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
    """Why it asks, and how the answer could be remembered; or why it passed unasked. Nothing of what is harmless."""
    about: dict[str, Any] = {"rule": gate["rule"], "reason": gate["reason"]}
    if gate["status"] != "ask":
        return {**about, "passed_by": gate["passed"]} if "passed" in gate else None
    if "warning" in gate:
        about["warning"] = gate["warning"]
    pattern = None if gate.get("always_asks") else propose_pattern(call["name"], call["args"])
    return {**about, "remember": {"pattern": pattern}} if pattern else about


def tool_message(call: RequestedCall, content: str, *, error: bool = False) -> ToolMessage:
    return ToolMessage(
        content, tool_call_id=call["id"] or "", name=call["name"], status="error" if error else "success"
    )


def rejection_message(call: RequestedCall, content: str) -> ToolMessage:
    """The answer to a call that the user refused, marked where no text of a client can be."""
    return tool_message(call, content, error=True).model_copy(update={"additional_kwargs": {"rejected": True}})


def refusal_message(call: RequestedCall, content: str) -> ToolMessage:
    """The answer to a call that never left the service."""
    return tool_message(call, content, error=True).model_copy(update={"additional_kwargs": {"refused": True}})


def find_rejection(state: State, call: RequestedCall) -> str | None:
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


def human_message(content: str, state: State, run_id: str) -> HumanMessage:
    """What the user said, with what it found: whoever takes it back needs no older checkpoint for that."""
    found = {"run": run_id, "agent": current_agent(state), "switches": len(state.get("switches", []))}
    return HumanMessage(content, additional_kwargs={"found": found})


def service_message(text: str, *, calls: Sequence[RequestedCall] = (), **metadata: Any) -> AIMessage:
    """What the service says in the agent's place, marked where no text of a model can be."""
    return AIMessage(text, id=f"msg_{uuid4().hex}", tool_calls=[*calls], additional_kwargs=metadata)


def pending_service_question(state: State) -> AIMessage | None:
    """What the service asked its user as if it were a tool's approval, if nothing was said since; answered or not."""
    said = next((m for m in reversed(state.get("messages", [])) if not isinstance(m, ToolMessage)), None)
    return said if isinstance(said, AIMessage) and "question" in said.additional_kwargs else None


def without_asides(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """Without what is between the service and its user."""
    asides = [message for message in messages if "aside" in message.additional_kwargs]
    if not asides:
        return messages
    left_out = {call["id"] for message in asides if isinstance(message, AIMessage) for call in message.tool_calls}
    left_out |= {message.id for message in asides}
    return [m for m in messages if (m.tool_call_id if isinstance(m, ToolMessage) else m.id) not in left_out]


def starts_step(message: AnyMessage) -> bool:
    """Not an answer to a call, nor what is between the service and its user."""
    return message.type != "tool" and "aside" not in message.additional_kwargs


def last_request(state: State) -> str:
    """What the user said last."""
    return next((str(m.content) for m in reversed(state.get("messages", [])) if isinstance(m, HumanMessage)), "")
