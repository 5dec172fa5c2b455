"""Make one model call of one specialist: its prompt, its tools, and the part of the conversation that fits."""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.messages import ToolCall as RequestedCall
from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime

from graph import wire
from graph.completion.reply import Reply
from graph.completion.request import estimate_partial_usage, estimate_prompt_tokens, request_completion
from graph.errors import AgentRuntimeError, Cancelled, LimitReached, LLMInvalidAnswer
from graph.marks import is_aside
from graph.run_scope import await_cancellable
from graph.services import Services
from graph.state import State, StateUpdate, get_thread_id
from graph.usage.call import usage_of
from prompts import Agent


async def specialist(
    state: State,
    runtime: Runtime[wire.StreamOptions],
    config: RunnableConfig,
    *,
    agent: Agent,
    services: Services,
) -> StateUpdate:
    options = runtime.context or wire.StreamOptions()
    words: list[str] = []
    emit = _make_emitter(options, runtime, words)
    update: StateUpdate = {}
    try:
        with services.speculator.take_over(
            get_thread_id(config), agent.name, runtime.stream_writer
        ) as speculative_call:
            services.budgets.check_limits(state.get("spent"))
            if question := services.budgets.warning_question(state.get("spent")):
                return {"messages": [question.model_copy(update={"name": agent.name})]}
            context, update, usages = services.summarizer.prepare(get_thread_id(config), state, agent)
            for usage in usages:
                runtime.stream_writer(usage)
            new_call = partial(request_completion, services.llm, agent, context, options, emit, state["messages"])
            model_call = partial(speculative_call.follow_stream, emit) if speculative_call else new_call
            reply = await _complete_with_usage(model_call, agent, context, words, runtime)
        if not str(reply.message.content).strip() and not reply.message.tool_calls:
            raise LLMInvalidAnswer("The model's answer was empty. Send the message again.")
        _check_tool_call_limit(state, services.settings.max_turn_tool_calls, reply.message.tool_calls)
    except AgentRuntimeError as error:
        runtime.stream_writer(wire.error_chunk(error))
        return {**update, "ended": True}
    ends = [services.gatekeeper.ends_turn(agent.name, call["name"], call["args"]) for call in reply.message.tool_calls]
    _emit_text(reply, any(ends) and not reply.answers, options, runtime)
    message = reply.message.model_copy(update={"name": agent.name})
    return {**update, "messages": [message, *reply.answers], "ended": not message.tool_calls}


async def _complete_with_usage(
    model_call: Callable[[], Coroutine[Any, Any, Reply]],
    agent: Agent,
    conversation: Sequence[AnyMessage],
    words: Sequence[str],
    runtime: Runtime[wire.StreamOptions],
) -> Reply:
    """Return the reply and emit its usage. The usage of a call that was stopped or broke off is estimated."""
    has_started = False

    async def start_request() -> Reply:
        nonlocal has_started
        has_started = True
        return await model_call()

    try:
        reply = await await_cancellable(start_request())
    except AgentRuntimeError as error:
        if words or (has_started and isinstance(error, Cancelled | LimitReached)):
            runtime.stream_writer(estimate_partial_usage(agent, conversation, words, "answer"))
        raise
    size = partial(estimate_prompt_tokens, agent, conversation)
    runtime.stream_writer(usage_of(reply.message, size, agent=agent.name, purpose="answer"))
    return reply


def _check_tool_call_limit(state: State, limit: int, new_calls: Sequence[RequestedCall]) -> None:
    """Raise LimitReached if the model has made more tool calls than allowed since the user's last message."""
    count = len(new_calls)
    for message in reversed(state["messages"]):
        if isinstance(message, HumanMessage):
            break
        if isinstance(message, AIMessage) and not is_aside(message):
            count += len(message.tool_calls)
    if count > limit:
        raise LimitReached(f"The turn was stopped at its limit of {limit} tool calls. Send a message to go on.")


def _make_emitter(
    options: wire.StreamOptions, runtime: Runtime[wire.StreamOptions], words: list[str]
) -> Callable[[str], None]:
    def emit_token(text: str) -> None:
        words.append(text)
        if options.tokens:
            runtime.stream_writer(wire.AssistantMessage(token=text))

    return emit_token


def _emit_text(reply: Reply, ends: bool, options: wire.StreamOptions, runtime: Runtime[wire.StreamOptions]) -> None:
    """Emit the whole text. If a call ends the turn, its answer holds the text, and nothing is emitted here."""
    if (text := str(reply.message.content)) and not ends:
        runtime.stream_writer(wire.assistant_chunk(text, options, is_final=not reply.message.tool_calls))
