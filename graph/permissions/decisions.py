"""Apply a client's answer to the open calls, and refuse a message that cannot be accepted. Pure."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from langchain_core.messages import ToolMessage

from graph import wire
from graph.conversation import open_calls, pending_calls, rejection_message, tool_message
from graph.errors import AgentRuntimeError, CallNotOpen, InvalidMessage
from graph.state import CallGate, State, StateUpdate
from graph.tools.catalog import ToolExecutor, executor_of
from prompts import ORCHESTRATOR

RESULT_LIMIT = 1_000_000
"""Bytes of UTF-8 of one result that a model reads. Far more than a context holds, so that no useful text is cut."""
CANCELLED_RESULT = "cancelled: the user went on"
NO_OUTPUT = "(no output)"
"""Stands for the result of a tool that returned nothing."""
EDITED_NOTE = "The user edited the arguments before agreeing; the call holds what ran.\n"


MessageT = TypeVar("MessageT", bound=wire.Message)


def require_available(message: MessageT, team: Collection[str]) -> MessageT:
    """Return the message. Raises InvalidMessage if it chooses an agent that this mode does not have."""
    if isinstance(message, wire.SwitchAgent) and message.agent_type not in {ORCHESTRATOR, *team}:
        agents = ", ".join([ORCHESTRATOR, *team])
        raise InvalidMessage(f"The agent {message.agent_type} is not available in this mode. Choose one of: {agents}.")
    return message


def require_open_call(calls: Sequence[wire.ToolCall], answer: wire.ToolResult | wire.HitlDecision) -> wire.ToolCall:
    """Return the call that is answered. Raises CallNotOpen, whose sentence names the open calls."""
    call = next((call for call in calls if call.call_id == answer.call_id), None)
    if call is None:
        raise CallNotOpen(
            f"The call {answer.call_id[:128]!r} does not wait for an answer. {_describe_open_calls(calls)}"
        )
    if isinstance(answer, wire.HitlDecision) and not call.requires_approval:
        raise CallNotOpen(
            f"The call {answer.call_id[:128]!r} waits for its result, not for a decision. {_describe_open_calls(calls)}"
        )
    return call


def _describe_open_calls(calls: Sequence[wire.ToolCall]) -> str:
    return f"Open calls: {', '.join(call.call_id for call in calls)}." if calls else "No call is open."


def apply_answer(state: State, answer: Any, emit: Callable[[wire.Error], None]) -> StateUpdate:
    """Return the state update. An answer that fits no open call changes nothing, and an error chunk says so."""
    try:
        parsed = wire.parse_message(answer, wire.ANSWER_ADAPTER)
        require_open_call(pending_calls(state), parsed)
    except AgentRuntimeError as error:
        emit(wire.error_chunk(error))
        return {}
    match parsed:
        case wire.ToolResult() if _is_service_approval(state, parsed):
            return {
                "gates": {**state["gates"], parsed.call_id: {**state["gates"][parsed.call_id], "status": "approved"}}
            }
        case wire.ToolResult():
            return {"messages": [_answer_with_result(state, parsed)]}
        case wire.HitlDecision(decision="reject"):
            return {"messages": [_reject_call(state, parsed)]}
        case wire.HitlDecision():
            return {"gates": {**state["gates"], parsed.call_id: _approve_call(state, parsed)}}


def _is_service_approval(state: State, result: wire.ToolResult) -> bool:
    """Return whether a result is the approval of a call that the service executes itself.

    A client that sends a result for such a call has asked its user, who agreed. An error agrees to nothing.
    """
    call = _find_open_call(state, result.call_id)
    return (
        state["gates"][result.call_id]["status"] == "ask"
        and executor_of(call["name"]) is not ToolExecutor.IDE
        and result.implied_decision == "approve"
    )


def _approve_call(state: State, decision: wire.HitlDecision) -> CallGate:
    gate = state["gates"][decision.call_id]
    if decision.decision == "edit":
        return {**gate, "status": "edited", "arguments": decision.modified_arguments}
    return {**gate, "status": "approved"}


def _reject_call(state: State, decision: wire.HitlDecision) -> ToolMessage:
    feedback = f" They said: {decision.feedback}" if decision.feedback else ""
    return rejection_message(_find_open_call(state, decision.call_id), f"The user rejected this call.{feedback}")


def _answer_with_result(state: State, result: wire.ToolResult) -> ToolMessage:
    note = EDITED_NOTE if state["gates"][result.call_id].get("was_edited") else ""
    if result.is_rejected and state["gates"][result.call_id]["status"] == "ask":
        return rejection_message(_find_open_call(state, result.call_id), truncate_result(f"Error: {result.error}"))
    if result.error is not None:
        return tool_message(
            _find_open_call(state, result.call_id), note + truncate_result(f"Error: {result.error}"), error=True
        )
    return tool_message(_find_open_call(state, result.call_id), note + truncate_result(format_result(result.result)))


def _find_open_call(state: State, call_id: str) -> Any:
    return next(call for call in open_calls(state) if call["id"] == call_id)


def format_result(result: Any) -> str:
    """Return a tool's result as a model reads it."""
    if result is None:
        return NO_OUTPUT
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def truncate_result(text: str) -> str:
    """Cut a text that is too long at its end, between two characters, and say how much is left out."""
    data = text.encode(errors="replace")
    if len(data) <= RESULT_LIMIT:
        return text
    kept = data[:RESULT_LIMIT].decode(errors="ignore")
    return f"{kept}\n[cut here: {len(data) - len(kept.encode())} of {len(data)} bytes were left out]"


def answer_open_calls(state: State, text: str = CANCELLED_RESULT) -> list[ToolMessage]:
    """Return an answer with `text` for each open call. A conversation can only continue without open calls."""
    return [tool_message(call, text, error=True) for call in open_calls(state)]
