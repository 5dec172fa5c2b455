"""The gate: refuse what this agent may not do, find out what a human must agree to, let the rest pass."""

from typing import Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.messages import ToolCall as RequestedCall
from langgraph.runtime import Runtime

from graph import wire
from graph.errors import EditRefused
from graph.gate import MALFORMED, edited, verdict
from graph.state import Gate, State, answer, holder, now, open_calls, to_wire
from graph.tools import Side, side
from policy import Verdict


async def permission(state: State, runtime: Runtime[wire.StreamOptions]) -> dict[str, Any]:
    messages: list[AnyMessage] = []
    gates: dict[str, Gate] = {}
    for call in open_calls(state):
        match state.get("gates", {}).get(call["id"] or ""):
            case None:
                gate = _judged(call, holder(state), messages, runtime)
            case {"status": "edited"} as proposed:
                call, gate = _edited(call, proposed, state, messages, runtime)
            case {"status": "approved"} as approved:
                gate = _sent(call, approved, runtime)
            case waiting:
                gate = waiting
        if gate:
            gates[call["id"] or ""] = gate
    return {"messages": messages, "gates": gates} if messages or gates != state.get("gates", {}) else {}


def _judged(
    call: RequestedCall, agent: str, messages: list[AnyMessage], runtime: Runtime[wire.StreamOptions]
) -> Gate | None:
    ruling = verdict(agent, call["name"], call["args"])
    if ruling.decision == "deny":
        messages.append(answer(call, ruling.reason, error=True))
        if ruling.rule != MALFORMED:
            runtime.stream_writer(_refusal(call, ruling))
        return None
    gate = Gate(status="ask", agent=agent, rule=ruling.rule, reason=ruling.reason, created_at=now())
    if ruling.decision == "ask":
        runtime.stream_writer(to_wire(call, gate))
        return gate
    if side(call["name"]) is not Side.IDE:
        return {**gate, "status": "local"}
    return _sent(call, gate, runtime)


def _edited(
    call: RequestedCall,
    proposed: Gate,
    state: State,
    messages: list[AnyMessage],
    runtime: Runtime[wire.StreamOptions],
) -> tuple[RequestedCall, Gate]:
    gate: Gate = {**proposed, "status": "ask"}
    changes = gate.pop("arguments")
    try:
        changed = edited(gate["agent"], call["name"], call["args"], changes)
    except EditRefused as error:
        runtime.stream_writer(wire.failure(error, call_id=call["id"] or ""))
        return call, gate
    call = {**call, "args": changed}
    messages.append(_with(call, state["messages"]))
    return call, _sent(call, {**gate, "was_edited": True}, runtime)


def _with(call: RequestedCall, messages: list[AnyMessage]) -> AIMessage:
    """The model's message, as if it had asked for this call."""
    asked = next(m for m in reversed(messages) if isinstance(m, AIMessage) and m.tool_calls)
    calls = [call if old["id"] == call["id"] else old for old in asked.tool_calls]
    return asked.model_copy(update={"tool_calls": calls})


def _sent(call: RequestedCall, gate: Gate, runtime: Runtime[wire.StreamOptions]) -> Gate:
    sent: Gate = {**gate, "status": "sent"}
    runtime.stream_writer(to_wire(call, sent))
    return sent


def _refusal(call: RequestedCall, ruling: Verdict) -> wire.Error:
    about = {"code": "tool_denied", "call_id": call["id"], "tool_name": call["name"], "rule": ruling.rule}
    return wire.Error(error=ruling.reason, metadata=about, is_final=False)
