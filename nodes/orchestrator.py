"""Accept the user's message, and choose a specialist unless one has the conversation already."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime

from graph import wire
from graph.completion.request import request_completion
from graph.completion.speculation import SpeculativeCall
from graph.conversation import human_message, last_request
from graph.errors import AgentRuntimeError, InvalidMessage
from graph.permissions.decisions import answer_open_calls, require_available
from graph.routing.cache import Choice
from graph.routing.classifier import classify
from graph.routing.words import read_words
from graph.run_scope import await_cancellable
from graph.services import Services
from graph.state import State, StateUpdate, current_agent, get_thread_id, handoff
from graph.usage.budgets import accept_by_message, reset_turn_usage
from prompts import ORCHESTRATOR


async def orchestrator(
    state: State,
    runtime: Runtime[wire.StreamOptions],
    config: RunnableConfig,
    *,
    services: Services,
) -> StateUpdate:
    """Accept the message, if there is one, and choose a specialist, unless one has the conversation."""
    thread, team = get_thread_id(config), services.team
    services.speculator.cancel(thread, runtime.stream_writer)
    update: StateUpdate = {}
    if message := state.get("message"):
        try:
            run_id = (config.get("metadata") or {}).get("run", "")
            update = _accept_message(
                state, require_available(wire.parse_message(message, wire.START_ADAPTER), team), runtime, run_id
            )
        except InvalidMessage as error:
            runtime.stream_writer(wire.error_chunk(error))
            return {"message": None, "messages": answer_open_calls(state), "gates": {}, "ended": True}
    if update.get("ended") or update.get("agent", current_agent(state)) in team:
        return update
    after = _apply_update(state, update)
    try:
        choice = await await_cancellable(_choose_agent(after, services, runtime, thread))
    except AgentRuntimeError as error:
        runtime.stream_writer(wire.error_chunk(error))
        return {**update, "ended": True}
    record, chunk = handoff(
        current_agent(after),
        choice.agent,
        choice.reasoning,
        confidence=choice.confidence,
        classification_method=choice.method,
    )
    runtime.stream_writer(chunk)
    return {**update, "agent": choice.agent, "switches": [*update.get("switches", []), *record]}


def _apply_update(state: State, update: StateUpdate) -> State:
    after: Any = {
        **state,
        **update,
        "messages": [*state.get("messages", []), *update.get("messages", [])],
        "switches": [*state.get("switches", []), *update.get("switches", [])],
    }
    return cast("State", after)


async def _choose_agent(state: State, services: Services, runtime: Runtime[wire.StreamOptions], thread: str) -> Choice:
    """Return the choice of an agent for the last request.

    The request may get an earlier choice from the cache, or the choice of its words, unless an agent or the user handed
    the conversation back to the orchestrator: that choice was wrong for them. With speculative routing the specialist
    that the words leave no doubt about starts while the model still chooses. That needs a thread's id, by which the
    specialist finds the call.
    """
    usage = state.get("spent")
    services.budgets.check_limits(usage)
    switches = state.get("switches", [])
    is_handed_back = bool(switches) and switches[-1]["to"] == ORCHESTRATOR
    choose = partial(
        classify,
        services.llm,
        last_request(state),
        services.team,
        cache=None if is_handed_back else services.routing_cache,
        on_usage=runtime.stream_writer,
        skip_model=services.settings.routing_skip_model and not is_handed_back,
    )
    if services.settings.speculative_routing and thread and not services.budgets.warning_question(usage):
        return await _choose_speculatively(choose, services, state, runtime, thread)
    return await choose()


async def _choose_speculatively(
    choose: Callable[[], Coroutine[Any, Any, Choice]],
    services: Services,
    state: State,
    runtime: Runtime[wire.StreamOptions],
    thread: str,
) -> Choice:
    reading = read_words(last_request(state), services.team)
    if not reading.is_agreed:
        return await choose()  # the guess would often be wrong, and its tokens are paid for
    agent = services.team[reading.choice.agent]
    options = runtime.context or wire.StreamOptions()
    context = services.summarizer.preview(state, agent)

    def start_call() -> SpeculativeCall:
        return SpeculativeCall(
            agent,
            context,
            lambda emit: request_completion(services.llm, agent, context, options, emit, state["messages"]),
        )

    return await services.speculator.choose_agent(thread, choose(), start_call, runtime.stream_writer)


def _accept_message(
    state: State, message: wire.UserMessage | wire.SwitchAgent, runtime: Runtime[wire.StreamOptions], run_id: str
) -> StateUpdate:
    """Return the update that starts a turn: answers for open calls, the message, and the agent that the user chose."""
    messages: list[AnyMessage] = [*answer_open_calls(state)]
    if message.content.strip():
        messages.append(human_message(message.content, state, run_id))
    update: StateUpdate = {"message": None, "messages": messages, "gates": {}, "ended": False}
    update["spent"] = reset_turn_usage(accept_by_message(state) if message.content.strip() else state.get("spent"))
    return update if isinstance(message, wire.UserMessage) else {**update, **_switch_agent(state, message, runtime)}


def _switch_agent(state: State, message: wire.SwitchAgent, runtime: Runtime[wire.StreamOptions]) -> StateUpdate:
    """Return the update of the user's choice. A choice of the present agent is only acknowledged."""
    is_all = not message.content.strip()
    record, chunk = handoff(current_agent(state), message.agent_type, message.reason or "The user chose it.")
    if record or is_all:
        runtime.stream_writer(chunk.model_copy(update={"is_final": is_all}))
    return {"agent": message.agent_type, "switches": record, "ended": is_all}
