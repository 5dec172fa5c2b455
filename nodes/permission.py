"""The gate: refuse what this agent may not do, find out what a human must agree to, let the rest pass."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from langgraph.runtime import Runtime

from graph import wire
from graph.conversation import open_calls, own, own_question, refusal, rejected, to_wire
from graph.errors import EditRefused
from graph.permissions.gatekeeper import MALFORMED, REPEATED, Gatekeeper, standing_grants
from graph.permissions.loops import repeated
from graph.state import Gate, State, holder
from graph.timestamps import now
from graph.tools.catalog import Side, side
from graph.usage.budgets import declined, stopped
from policy import Verdict
from policy.grants import Grant

NOT_RUN = "not run: it was called twice before, and nothing new was done since; the user is asked how to go on"
LEFT_OUT = "not run: the turn ended with a question to the user"


async def permission(state: State, runtime: Runtime[wire.StreamOptions], *, gatekeeper: Gatekeeper) -> dict[str, Any]:
    before, calls = state.get("gates", {}), open_calls(state)
    if question := declined(state):
        return _ended([], own(stopped(question), aside=True), state, runtime)
    new = [call for call in calls if (call["id"] or "") not in before]
    if new and (repeat := repeated(state["messages"], new, gatekeeper.changes)):
        answers = [refusal(call, NOT_RUN if call is repeat.call else LEFT_OUT) for call in calls]
        return _ended(answers, own(repeat.question, told=repeat.about), state, runtime)
    passage = Passage(state, runtime, gatekeeper)
    for call in calls:
        match before.get(call["id"] or ""):
            case None:
                await passage.judge(call)
            case {"status": "edited"} as proposed:
                passage.edit(call, proposed)
            case {"status": "approved"} as approved:
                passage.send(call, approved)
            case waiting:
                passage.gates[call["id"] or ""] = waiting
    changed = passage.messages or passage.gates != before
    return {"messages": passage.messages, "gates": passage.gates} if changed else {}


def _ended(
    answers: list[ToolMessage], said: AIMessage, state: State, runtime: Runtime[wire.StreamOptions]
) -> dict[str, Any]:
    """The turn, with words of the service."""
    options, text = runtime.context or wire.StreamOptions(), str(said.content)
    if options.tokens:
        runtime.stream_writer(wire.AssistantMessage(token=text))
    runtime.stream_writer(wire.whole_text(text, options, is_final=True, metadata=said.additional_kwargs.get("told")))
    message = said.model_copy(update={"name": holder(state)})
    return {"messages": [*answers, message], "gates": {}, "ended": True}


class Passage:
    """The open calls on one way through the gate, and what comes of them."""

    def __init__(self, state: State, runtime: Runtime[wire.StreamOptions], gatekeeper: Gatekeeper) -> None:
        self._state, self._tell, self._gatekeeper = state, runtime.stream_writer, gatekeeper
        self._used: Counter[str] = Counter()
        self.messages: list[AnyMessage] = []
        self.gates: dict[str, Gate] = {}

    async def judge(self, call: RequestedCall) -> None:
        agent = holder(self._state)
        if question := own_question(self._state):
            self._put(call, agent, question.additional_kwargs["question"])
            return
        ruling = self._gatekeeper.verdict(agent, call["name"], call["args"])
        gate = Gate(status="ask", agent=agent, rule=ruling.rule, reason=ruling.reason, created_at=now())
        match ruling.decision:
            case "deny":
                self._refuse(call, ruling)
            case "allow":
                self.send(call, {**gate, "passed": "policy"} if ruling.dangerous else gate)
            case "ask" if feedback := rejected(self._state, call):
                self._refuse(call, ruling._replace(rule=REPEATED, reason=feedback))
            case "ask" if grant := await self._grant(agent, call, ruling):
                reason = "The user allowed calls like this one."
                self.send(call, {**gate, "passed": "grant", "rule": f"grant.{grant.id}", "reason": reason})
            case "ask":
                self._ask(call, gate, ruling)

    async def _grant(self, agent: str, call: RequestedCall, ruling: Verdict) -> Grant | None:
        if ruling.always_asks:
            return None
        for grant in await standing_grants():
            left = grant.uses_left is None or grant.uses_left > self._used[grant.id]
            if left and grant.covers(agent, call["name"], call["args"]):
                self._used[grant.id] += 1
                return grant
        return None

    def _refuse(self, call: RequestedCall, ruling: Verdict) -> None:
        self.messages.append(refusal(call, ruling.reason))
        if ruling.rule != MALFORMED:
            about = {"code": "tool_denied", "call_id": call["id"], "tool_name": call["name"], "rule": ruling.rule}
            self._tell(wire.Error(error=ruling.reason, metadata=about, is_final=False))

    def _put(self, call: RequestedCall, agent: str, about: Mapping[str, Any]) -> None:
        """What the service asks its user; no policy and no grant has a say in it."""
        gate = Gate(status="ask", agent=agent, rule=about["rule"], reason=about["reason"], created_at=now())
        gate["always_asks"] = True
        self.gates[call["id"] or ""] = gate
        self._tell(to_wire(call, gate))

    def _ask(self, call: RequestedCall, gate: Gate, ruling: Verdict) -> None:
        if ruling.warning:
            gate["warning"] = ruling.warning
        if ruling.always_asks:
            gate["always_asks"] = True
        self.gates[call["id"] or ""] = gate
        self._tell(to_wire(call, gate))

    def edit(self, call: RequestedCall, proposed: Gate) -> None:
        gate: Gate = {**proposed, "status": "ask"}
        changes = gate.pop("arguments")
        try:
            changed = self._gatekeeper.edited(gate["agent"], call["name"], call["args"], changes)
        except EditRefused as error:
            self._tell(wire.failure(error, call_id=call["id"] or ""))
            self.gates[call["id"] or ""] = gate
            return
        call = {**call, "args": changed}
        self.messages.append(_with(call, self._state["messages"]))
        self.send(call, {**gate, "was_edited": True})

    def send(self, call: RequestedCall, gate: Gate) -> None:
        """To who answers it: the service itself, or the IDE."""
        if side(call["name"]) is not Side.IDE:
            self.gates[call["id"] or ""] = {**gate, "status": "local"}
            return
        sent: Gate = {**gate, "status": "sent"}
        self.gates[call["id"] or ""] = sent
        self._tell(to_wire(call, sent))


def _with(call: RequestedCall, messages: list[AnyMessage]) -> AIMessage:
    """The model's message, as if it had asked for this call."""
    asked = next(m for m in reversed(messages) if isinstance(m, AIMessage) and m.tool_calls)
    calls = [call if old["id"] == call["id"] else old for old in asked.tool_calls]
    return asked.model_copy(update={"tool_calls": calls})
