"""What a client's message does to the open calls, and whether it can be taken at all. Pure."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from langchain_core.messages import ToolCall as RequestedCall
from langchain_core.messages import ToolMessage

from graph import wire
from graph.conversation import answer, open_calls, pending_calls, rejection
from graph.errors import AgentRuntimeError, CallNotOpen, InvalidMessage
from graph.state import Gate, State
from graph.tools.catalog import Side, side
from prompts import ORCHESTRATOR

RESULT_LIMIT = 1_000_000
"""Bytes of UTF-8 that a model reads of one result."""
CANCELLED = "cancelled: the user went on"
EDITED = "The user edited the arguments before agreeing; the call holds what ran.\n"


Start = TypeVar("Start", bound=wire.Message)


def available(message: Start, team: Collection[str]) -> Start:
    """The message. Raises InvalidMessage if it picks an agent that this mode does not have."""
    if isinstance(message, wire.SwitchAgent) and message.agent_type not in {ORCHESTRATOR, *team}:
        there = ", ".join([ORCHESTRATOR, *team])
        raise InvalidMessage(f"The agent {message.agent_type} is not available in this mode; there are {there}.")
    return message


def check(calls: Sequence[wire.ToolCall], said: wire.ToolResult | wire.HitlDecision) -> wire.ToolCall:
    """The call that is answered. Raises CallNotOpen, naming the calls that are open."""
    call = next((call for call in calls if call.call_id == said.call_id), None)
    if call is None:
        raise CallNotOpen(f"The call {said.call_id[:128]!r} does not wait for an answer. {_open(calls)}")
    if isinstance(said, wire.HitlDecision) and not call.requires_approval:
        raise CallNotOpen(f"The call {said.call_id[:128]!r} waits for its result, not for a decision. {_open(calls)}")
    return call


def _open(calls: Sequence[wire.ToolCall]) -> str:
    return f"Open calls: {', '.join(call.call_id for call in calls)}." if calls else "No call is open."


def settled(state: State, said: Any, tell: Callable[[wire.Error], None]) -> dict[str, Any]:
    """The state update; an answer that fits no open call changes nothing and is told so."""
    try:
        parsed = wire.parse(said, wire.ANSWER)
        check(pending_calls(state), parsed)
    except AgentRuntimeError as error:
        tell(wire.failure(error))
        return {}
    match parsed:
        case wire.ToolResult() if _agrees_to_own(state, parsed):
            return {
                "gates": {**state["gates"], parsed.call_id: {**state["gates"][parsed.call_id], "status": "approved"}}
            }
        case wire.ToolResult():
            return {"messages": [_result(state, parsed)]}
        case wire.HitlDecision(decision="reject"):
            return {"messages": [_rejection(state, parsed)]}
        case wire.HitlDecision():
            return {"gates": {**state["gates"], parsed.call_id: _agreed(state, parsed)}}


def _agrees_to_own(state: State, said: wire.ToolResult) -> bool:
    """Whether a client answers a call that asks, and that the service runs itself: it can only have agreed."""
    call = _call(state, said.call_id)
    return state["gates"][said.call_id]["status"] == "ask" and side(call["name"]) is not Side.IDE and not said.refused


def _agreed(state: State, said: wire.HitlDecision) -> Gate:
    gate = state["gates"][said.call_id]
    if said.decision == "edit":
        return {**gate, "status": "edited", "arguments": said.modified_arguments}
    return {**gate, "status": "approved"}


def _rejection(state: State, said: wire.HitlDecision) -> ToolMessage:
    feedback = f" They said: {said.feedback}" if said.feedback else ""
    return rejection(_call(state, said.call_id), f"The user rejected this call.{feedback}")


def _result(state: State, said: wire.ToolResult) -> ToolMessage:
    note = EDITED if state["gates"][said.call_id].get("was_edited") else ""
    if said.refused and state["gates"][said.call_id]["status"] == "ask":
        return rejection(_call(state, said.call_id), cut(f"Error: {said.error}"))
    if said.error is not None:
        return answer(_call(state, said.call_id), note + cut(f"Error: {said.error}"), error=True)
    return answer(_call(state, said.call_id), note + cut(as_text(said.result)))


def _call(state: State, call_id: str) -> Any:
    return next(call for call in open_calls(state) if call["id"] == call_id)


def conclusion(call: RequestedCall) -> tuple[str, dict[str, Any]] | None:
    """What a call that ends the turn says, and the metadata of the answer that it is part of."""
    match call:
        case {"name": "attempt_completion", "args": {"result": str(result)}}:
            return result, {"completion": True}
        case {"name": "ask_followup_question", "args": {"question": str(question), **rest}}:
            return question, {"question": True, "suggestions": rest.get("suggestions") or []}
    return None


def as_text(result: Any) -> str:
    """A tool's result as its model reads it."""
    if result is None:
        return "(no output)"
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def cut(text: str) -> str:
    """At the end, between two characters, with a mark."""
    data = text.encode(errors="replace")
    if len(data) <= RESULT_LIMIT:
        return text
    kept = data[:RESULT_LIMIT].decode(errors="ignore")
    return f"{kept}\n[cut here: {len(data) - len(kept.encode())} of {len(data)} bytes were left out]"


def cancelled(state: State, told: str = CANCELLED) -> list[ToolMessage]:
    """Answers for all open calls, so that the conversation can go on without them."""
    return [answer(call, told, error=True) for call in open_calls(state)]
