"""One model call of one specialist: its prompt, its tools, and of the conversation what fits."""

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
from graph.state import State, get_thread_id
from graph.usage.call import usage_of
from prompts import Agent


async def specialist(
    state: State,
    runtime: Runtime[wire.StreamOptions],
    config: RunnableConfig,
    *,
    agent: Agent,
    services: Services,
) -> dict[str, Any]:
    options = runtime.context or wire.StreamOptions()
    words: list[str] = []
    tell = _make_emitter(options, runtime, words)
    update: dict[str, Any] = {}
    try:
        with services.speculator.take_over(get_thread_id(config), agent.name, runtime.stream_writer) as begun:
            services.budgets.check_limits(state.get("spent"))
            if question := services.budgets.warning_question(state.get("spent")):
                return {"messages": [question.model_copy(update={"name": agent.name})]}
            sent, update, costs = services.summarizer.prepare(get_thread_id(config), state, agent)
            for cost in costs:
                runtime.stream_writer(cost)
            anew = partial(request_completion, services.llm, agent, sent, options, tell, state["messages"])
            asking = partial(begun.follow_stream, tell) if begun else anew
            reply = await _complete_with_usage(asking, agent, sent, words, runtime)
        if not str(reply.message.content).strip() and not reply.message.tool_calls:
            raise LLMInvalidAnswer("The model answered with nothing. Send the message again.")
        _check_tool_call_limit(state, services.settings.max_turn_tool_calls, reply.message.tool_calls)
    except AgentRuntimeError as error:
        runtime.stream_writer(wire.error_chunk(error))
        return {**update, "ended": True}
    ends = [services.gatekeeper.ends_turn(agent.name, call["name"], call["args"]) for call in reply.message.tool_calls]
    _emit_text(reply, any(ends) and not reply.answers, options, runtime)
    message = reply.message.model_copy(update={"name": agent.name})
    return {**update, "messages": [message, *reply.answers], "ended": not message.tool_calls}


async def _complete_with_usage(
    request_reply: Callable[[], Coroutine[Any, Any, Reply]],
    agent: Agent,
    conversation: Sequence[AnyMessage],
    words: Sequence[str],
    runtime: Runtime[wire.StreamOptions],
) -> Reply:
    """Tells what the call cost; of one that was stopped, or broke off, about what it did."""
    is_asked = False

    async def start_request() -> Reply:
        nonlocal is_asked
        is_asked = True
        return await request_reply()

    try:
        reply = await await_cancellable(start_request())
    except AgentRuntimeError as error:
        if words or (is_asked and isinstance(error, Cancelled | LimitReached)):
            runtime.stream_writer(estimate_partial_usage(agent, conversation, words, "answer"))
        raise
    cost = usage_of(
        reply.message, lambda: estimate_prompt_tokens(agent, conversation), agent=agent.name, purpose="answer"
    )
    runtime.stream_writer(cost)
    return reply


def _check_tool_call_limit(state: State, limit: int, new_calls: Sequence[RequestedCall]) -> None:
    """Raises LimitReached when, since the user's last message, the model asks for tools too often."""
    tools = len(new_calls)
    for message in reversed(state["messages"]):
        if isinstance(message, HumanMessage):
            break
        if isinstance(message, AIMessage) and not is_aside(message):
            tools += len(message.tool_calls)
    if tools > limit:
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
    """The whole text, unless it is told as part of the answer that a call ends the turn with."""
    if (text := str(reply.message.content)) and not ends:
        runtime.stream_writer(wire.assistant_chunk(text, options, is_final=not reply.message.tool_calls))
