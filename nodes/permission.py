"""Check each open call: refuse what the agent may not do, request the approvals that it needs, send the rest."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.messages import ToolCall as RequestedCall
from langgraph.runtime import Runtime

from graph import wire
from graph.conversation import (
    malformed_message,
    open_calls,
    pending_service_question,
    refusal_message,
    service_message,
    to_wire_call,
)
from graph.errors import EditRefused
from graph.marks import ServiceQuestion, chunk_metadata_of, question_of
from graph.permissions.gatekeeper import INVALID_ARGUMENTS_RULE, USER_REJECTED_RULE, Gatekeeper
from graph.permissions.loops import detect_loop
from graph.permissions.malformed import MALFORMED_QUESTIONS, MALFORMED_SUGGESTIONS, find_malformed_row
from graph.permissions.rejections import (
    REJECTION_QUESTION,
    SUGGESTIONS,
    find_rejection,
    has_rejections_in_a_row,
)
from graph.run_scope import load_active_grants
from graph.state import CallGate, State, StateUpdate, current_agent
from graph.timestamps import utc_timestamp
from graph.tools.catalog import ToolExecutor, executor_of
from graph.usage.budgets import closing_message
from policy import Verdict
from policy.grants import Grant

SKIPPED_CALL_RESULT = "not run: the turn ended with a question to the user"


async def permission(state: State, runtime: Runtime[wire.StreamOptions], *, gatekeeper: Gatekeeper) -> StateUpdate:
    before, calls = state.get("gates", {}), open_calls(state)
    if closing := closing_message(state):
        return _end_turn([], closing, state, runtime)
    new = [call for call in calls if (call["id"] or "") not in before]
    if new and (repeat := detect_loop(state["messages"], new, gatekeeper.is_mutating)):
        answers = [
            refusal_message(call, repeat.result if call is repeat.call else SKIPPED_CALL_RESULT) for call in calls
        ]
        return _end_turn(answers, service_message(repeat.question, told=repeat.metadata), state, runtime)
    if len(new) == len(calls) and has_rejections_in_a_row(state["messages"], gatekeeper.needs_approval):
        answers = [refusal_message(call, SKIPPED_CALL_RESULT) for call in calls]
        return _end_turn(answers, _make_question(REJECTION_QUESTION, SUGGESTIONS), state, runtime)
    check = PermissionCheck(state, runtime, gatekeeper)
    for call in calls:
        match before.get(call["id"] or ""):
            case None:
                await check.check_call(call)
            case {"status": "edited"} as proposed:
                check.edit_call(call, proposed)
            case {"status": "approved"} as approved:
                check.send_call(call, approved)
            case waiting:
                check.gates[call["id"] or ""] = waiting
    newest_first = chain(reversed(check.messages), reversed(state["messages"]))
    if not check.gates and (reason := find_malformed_row(newest_first)):
        question = _make_question(MALFORMED_QUESTIONS[reason], MALFORMED_SUGGESTIONS)
        return _end_turn(check.messages, question, state, runtime)
    is_changed = check.messages or check.gates != before
    return {"messages": check.messages, "gates": check.gates} if is_changed else {}


def _make_question(text: str, suggestions: list[str]) -> AIMessage:
    return service_message(text, told={"question": True, "suggestions": suggestions})


def _end_turn(
    answers: Sequence[AnyMessage], final_message: AIMessage, state: State, runtime: Runtime[wire.StreamOptions]
) -> StateUpdate:
    """Emit a message of the service and return the update that ends the turn with it."""
    options, text = runtime.context or wire.StreamOptions(), str(final_message.content)
    if options.tokens:
        runtime.stream_writer(wire.AssistantMessage(token=text))
    runtime.stream_writer(wire.assistant_chunk(text, options, is_final=True, metadata=chunk_metadata_of(final_message)))
    message = final_message.model_copy(update={"name": current_agent(state)})
    return {"messages": [*answers, message], "gates": {}, "ended": True}


class PermissionCheck:
    """The answers and the gates of the open calls, collected in one pass."""

    def __init__(self, state: State, runtime: Runtime[wire.StreamOptions], gatekeeper: Gatekeeper) -> None:
        self._state, self._emit, self._gatekeeper = state, runtime.stream_writer, gatekeeper
        self._used: Counter[str] = Counter()
        self.messages: list[AnyMessage] = []
        self.gates: dict[str, CallGate] = {}

    async def check_call(self, call: RequestedCall) -> None:
        agent = current_agent(self._state)
        if (question := pending_service_question(self._state)) and (mark := question_of(question)):
            self._open_service_question(call, agent, mark)
            return
        ruling = self._gatekeeper.evaluate_call(agent, call["name"], call["args"])
        gate = CallGate(status="ask", agent=agent, rule=ruling.rule, reason=ruling.reason, created_at=utc_timestamp())
        match ruling.decision:
            case "deny":
                self._refuse_call(call, ruling)
            case "allow":
                self._gatekeeper.unasked[ruling.rule] += 1
                self.send_call(call, {**gate, "passed": "policy"} if ruling.is_mutating else gate)
            case "ask" if feedback := find_rejection(self._state["messages"], call):
                self._refuse_call(call, ruling._replace(rule=USER_REJECTED_RULE, reason=feedback))
            case "ask" if grant := await self._find_grant(agent, call, ruling):
                reason = "The user allowed calls like this one."
                self.send_call(call, {**gate, "passed": "grant", "rule": f"grant.{grant.id}", "reason": reason})
            case "ask":
                self._request_approval(call, gate, ruling)

    async def _find_grant(self, agent: str, call: RequestedCall, ruling: Verdict) -> Grant | None:
        if ruling.always_asks:
            return None
        for grant in await load_active_grants():
            left = grant.uses_left is None or grant.uses_left > self._used[grant.id]
            if left and grant.covers(agent, call["name"], call["args"], is_protected=ruling.is_protected):
                self._used[grant.id] += 1
                return grant
        return None

    def _refuse_call(self, call: RequestedCall, ruling: Verdict) -> None:
        if ruling.rule == INVALID_ARGUMENTS_RULE:
            self.messages.append(malformed_message(call, ruling.reason, "invalid"))
            return
        self.messages.append(refusal_message(call, ruling.reason))
        metadata = {"code": "tool_denied", "call_id": call["id"], "tool_name": call["name"], "rule": ruling.rule}
        self._emit(wire.Error(error=ruling.reason, metadata=metadata, is_final=False))

    def _open_service_question(self, call: RequestedCall, agent: str, question: ServiceQuestion) -> None:
        """Request the approval of the service's own question. Neither the policy nor a grant can decide it."""
        gate = CallGate(
            status="ask", agent=agent, rule=question["rule"], reason=question["reason"], created_at=utc_timestamp()
        )
        gate["always_asks"] = True
        self.gates[call["id"] or ""] = gate
        self._emit(to_wire_call(call, gate))

    def _request_approval(self, call: RequestedCall, gate: CallGate, ruling: Verdict) -> None:
        if ruling.warning:
            gate["warning"] = ruling.warning
        if ruling.always_asks:
            gate["always_asks"] = True
        self.gates[call["id"] or ""] = gate
        self._emit(to_wire_call(call, gate))

    def edit_call(self, call: RequestedCall, proposed: CallGate) -> None:
        gate: CallGate = {**proposed, "status": "ask"}
        changes = gate.pop("arguments")
        try:
            changed = self._gatekeeper.apply_edit(gate["agent"], call["name"], call["args"], changes)
        except EditRefused as error:
            self._emit(wire.error_chunk(error, call_id=call["id"] or ""))
            self.gates[call["id"] or ""] = gate
            return
        call = {**call, "args": changed}
        self.messages.append(_replace_call(call, self._state["messages"]))
        self.send_call(call, {**gate, "was_edited": True})

    def send_call(self, call: RequestedCall, gate: CallGate) -> None:
        """Send a call to its executor: the service itself, or the IDE."""
        if executor_of(call["name"]) is not ToolExecutor.IDE:
            self.gates[call["id"] or ""] = {**gate, "status": "local"}
            return
        sent: CallGate = {**gate, "status": "sent"}
        self.gates[call["id"] or ""] = sent
        self._emit(to_wire_call(call, sent))


def _replace_call(call: RequestedCall, messages: list[AnyMessage]) -> AIMessage:
    """Return the model's message with this call in place of the one of the same id."""
    message = next(m for m in reversed(messages) if isinstance(m, AIMessage) and m.tool_calls)
    calls = [call if old["id"] == call["id"] else old for old in message.tool_calls]
    return message.model_copy(update={"tool_calls": calls})
