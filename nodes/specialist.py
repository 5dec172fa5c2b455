"""One model call of one specialist: its prompt, its tools, and of the conversation what fits."""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.messages import ToolCall as RequestedCall
from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime

from graph import wire
from graph.cancellation import stoppable
from graph.completion.reply import Reply
from graph.completion.request import ask, cut_off, sent_tokens
from graph.errors import AgentRuntimeError, Cancelled, LimitReached, LLMInvalidAnswer
from graph.services import Services
from graph.state import State, thread_of
from graph.usage.call import cost_of
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
    tell = _teller(options, runtime, words)
    update: dict[str, Any] = {}
    try:
        with services.ahead.taken_over(thread_of(config), agent.name, runtime.stream_writer) as begun:
            services.budgets.check(state.get("spent"))
            if question := services.budgets.question(state.get("spent")):
                return {"messages": [question.model_copy(update={"name": agent.name})]}
            sent, update, costs = services.memories.given(thread_of(config), state, agent)
            for cost in costs:
                runtime.stream_writer(cost)
            anew = partial(ask, services.llm, agent, sent, options, tell, state["messages"])
            asking = partial(begun.followed, tell) if begun else anew
            reply = await _paid_for(asking, agent, sent, words, runtime)
        if not str(reply.message.content).strip() and not reply.message.tool_calls:
            raise LLMInvalidAnswer("The model answered with nothing. Send the message again.")
        _within(state, services.settings.max_tool_calls, reply.message.tool_calls)
    except AgentRuntimeError as error:
        runtime.stream_writer(wire.failure(error))
        return {**update, "ended": True}
    ends = [services.gatekeeper.ends_turn(agent.name, call["name"], call["args"]) for call in reply.message.tool_calls]
    _tell(reply, any(ends) and not reply.answers, options, runtime)
    message = reply.message.model_copy(update={"name": agent.name})
    return {**update, "messages": [message, *reply.answers], "ended": not message.tool_calls}


async def _paid_for(
    asking: Callable[[], Coroutine[Any, Any, Reply]],
    agent: Agent,
    conversation: Sequence[AnyMessage],
    words: Sequence[str],
    runtime: Runtime[wire.StreamOptions],
) -> Reply:
    """Tells what the call cost; of one that was stopped, or broke off, about what it did."""
    is_asked = False

    async def asked() -> Reply:
        nonlocal is_asked
        is_asked = True
        return await asking()

    try:
        reply = await stoppable(asked())
    except AgentRuntimeError as error:
        if words or (is_asked and isinstance(error, Cancelled | LimitReached)):
            runtime.stream_writer(cut_off(agent, conversation, words, "answer"))
        raise
    cost = cost_of(reply.message, lambda: sent_tokens(agent, conversation), agent=agent.name, purpose="answer")
    runtime.stream_writer(cost)
    return reply


def _within(state: State, limit: int, asked: Sequence[RequestedCall]) -> None:
    """Raises LimitReached when, since the user's last message, the model asks for tools too often."""
    tools = len(asked)
    for message in reversed(state["messages"]):
        if isinstance(message, HumanMessage):
            break
        if isinstance(message, AIMessage) and "aside" not in message.additional_kwargs:
            tools += len(message.tool_calls)
    if tools > limit:
        raise LimitReached(f"The turn was stopped at its limit of {limit} tool calls. Send a message to go on.")


def _teller(
    options: wire.StreamOptions, runtime: Runtime[wire.StreamOptions], words: list[str]
) -> Callable[[str], None]:
    def tell(text: str) -> None:
        words.append(text)
        if options.tokens:
            runtime.stream_writer(wire.AssistantMessage(token=text))

    return tell


def _tell(reply: Reply, ends: bool, options: wire.StreamOptions, runtime: Runtime[wire.StreamOptions]) -> None:
    """The whole text, unless it is told as part of the answer that a call ends the turn with."""
    if (text := str(reply.message.content)) and not ends:
        runtime.stream_writer(wire.whole_text(text, options, is_final=not reply.message.tool_calls))
