"""Take in what the user sent, and choose a specialist, unless one holds the conversation."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime

from graph import wire
from graph.cancellation import stoppable
from graph.completion.request import ask
from graph.completion.speculation import Begun
from graph.conversation import last_request, said
from graph.errors import AgentRuntimeError, InvalidMessage
from graph.permissions.decisions import available, cancelled
from graph.routing.cache import Choice
from graph.routing.classifier import by_keywords, classify
from graph.services import Services
from graph.state import State, hand_over, holder, thread_of
from graph.usage.budgets import next_turn


async def orchestrator(
    state: State,
    runtime: Runtime[wire.StreamOptions],
    config: RunnableConfig,
    *,
    services: Services,
) -> dict[str, Any]:
    """When it speculates, the specialist whom the request's words speak for begins while the model still chooses.

    Not without a thread: nothing would tell whose call it is.
    """
    thread, team = thread_of(config), services.team
    services.ahead.drop(thread, runtime.stream_writer)
    update: dict[str, Any] = {}
    if message := state.get("message"):
        try:
            run_id = (config.get("metadata") or {}).get("run", "")
            update = _taken_in(state, available(wire.parse(message, wire.START), team), runtime, run_id)
        except InvalidMessage as error:
            runtime.stream_writer(wire.failure(error))
            return {"message": None, "messages": cancelled(state), "gates": {}, "ended": True}
    if update.get("ended") or update.get("agent", holder(state)) in team:
        return update
    after: Any = {**state, **update, "messages": [*state.get("messages", []), *update.get("messages", [])]}
    try:
        choice = await stoppable(_choice(after, services, runtime, thread, is_new=bool(update)))
    except AgentRuntimeError as error:
        runtime.stream_writer(wire.failure(error))
        return {**update, "ended": True}
    record, told = hand_over(
        holder(after), choice.agent, choice.reasoning, confidence=choice.confidence, classification_method=choice.method
    )
    runtime.stream_writer(told)
    return {**update, "agent": choice.agent, "switches": [*update.get("switches", []), *record]}


async def _choice(
    state: State, services: Services, runtime: Runtime[wire.StreamOptions], thread: str, *, is_new: bool
) -> Choice:
    """`is_new`: the request was not handed back by an agent, so what was chosen for it before may be right."""
    spent = state.get("spent")
    services.budgets.check(spent)
    known = services.known if is_new else None
    choosing = partial(
        classify, services.llm, last_request(state), services.team, known=known, tell=runtime.stream_writer
    )
    if services.settings.speculative_routing and thread and not services.budgets.question(spent):
        return await _guessing(choosing, services, state, runtime, thread)
    return await choosing()


async def _guessing(
    choosing: Callable[[], Coroutine[Any, Any, Choice]],
    services: Services,
    state: State,
    runtime: Runtime[wire.StreamOptions],
    thread: str,
) -> Choice:
    agent = services.team[by_keywords(last_request(state), services.team).agent]
    options = runtime.context or wire.StreamOptions()
    sent = services.memories.seen(state, agent)

    def begin() -> Begun:
        return Begun(agent, sent, lambda tell: ask(services.llm, agent, sent, options, tell, state["messages"]))

    return await services.ahead.choose(thread, choosing(), begin, runtime.stream_writer)


def _taken_in(
    state: State, message: wire.UserMessage | wire.SwitchAgent, runtime: Runtime[wire.StreamOptions], run_id: str
) -> dict[str, Any]:
    """The open calls are closed, the message is in the history, an agent that was picked holds the conversation."""
    messages: list[AnyMessage] = [*cancelled(state)]
    if message.content.strip():
        messages.append(said(message.content, state, run_id))
    update: dict[str, Any] = {"message": None, "messages": messages, "gates": {}, "ended": False}
    update["spent"] = next_turn(state.get("spent"))
    return update if isinstance(message, wire.UserMessage) else {**update, **_picked(state, message, runtime)}


def _picked(state: State, message: wire.SwitchAgent, runtime: Runtime[wire.StreamOptions]) -> dict[str, Any]:
    ends = not message.content.strip()
    record, told = hand_over(holder(state), message.agent_type, message.reason or "The user chose it.")
    runtime.stream_writer(told.model_copy(update={"is_final": ends}))
    return {"agent": message.agent_type, "switches": record, "ended": ends}
