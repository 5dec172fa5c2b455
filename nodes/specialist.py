"""One model call of one specialist: its prompt, its tools, and of the conversation what fits."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages import ToolCall as RequestedCall
from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime

from graph import wire
from graph.ahead import Ahead
from graph.asking import ask
from graph.errors import AgentRuntimeError, LimitReached, LLMInvalidAnswer
from graph.gate import Gatekeeper
from graph.memories import Memories
from graph.reply import Reply
from graph.spending import spent
from graph.state import State, thread_of
from graph.stop import stoppable
from prompts import Agent


class Limits(NamedTuple):
    """Between two messages of the user."""

    model_calls: int
    tool_calls: int


async def specialist(
    state: State,
    runtime: Runtime[wire.StreamOptions],
    config: RunnableConfig,
    *,
    agent: Agent,
    llm: BaseChatModel,
    gatekeeper: Gatekeeper,
    limits: Limits,
    ahead: Ahead,
    memories: Memories,
) -> dict[str, Any]:
    options = runtime.context or wire.StreamOptions()
    tell = _teller(options, runtime)
    given = memories.given(thread_of(config), state, agent)
    for cost in given.costs:
        runtime.stream_writer(cost)
    try:
        with ahead.taken_over(thread_of(config), agent.name) as begun:
            _within(state, limits, [])
            asked = begun.followed(tell) if begun else ask(llm, agent, given.messages, options, tell, state["messages"])
            reply = await stoppable(asked)
        if not str(reply.message.content).strip() and not reply.message.tool_calls:
            raise LLMInvalidAnswer("The model answered with nothing. Send the message again.")
        _within(state, limits, reply.message.tool_calls)
    except AgentRuntimeError as error:
        runtime.stream_writer(wire.failure(error))
        return {**given.update, "ended": True}
    ends = [gatekeeper.ends_turn(agent.name, call["name"], call["args"]) for call in reply.message.tool_calls]
    _tell(reply, agent, any(ends) and not reply.answers, options, runtime)
    message = reply.message.model_copy(update={"name": agent.name})
    return {**given.update, "messages": [message, *reply.answers], "ended": not message.tool_calls}


def _within(state: State, limits: Limits, asked: Sequence[RequestedCall]) -> None:
    """Raises LimitReached when, since the user's last message, the model was asked, or asks for tools, too often."""
    models, tools = 0, len(asked)
    for message in reversed(state["messages"]):
        if isinstance(message, HumanMessage):
            break
        if isinstance(message, AIMessage):
            models, tools = models + 1, tools + len(message.tool_calls)
    if models >= limits.model_calls:
        raise LimitReached(f"The turn was stopped after {models} model calls. Send a message to go on.")
    if tools > limits.tool_calls:
        raise LimitReached(
            f"The turn was stopped at its limit of {limits.tool_calls} tool calls. Send a message to go on."
        )


def _teller(options: wire.StreamOptions, runtime: Runtime[wire.StreamOptions]) -> Callable[[str], None]:
    def tell(text: str) -> None:
        if options.tokens:
            runtime.stream_writer(wire.AssistantMessage(token=text))

    return tell


def _tell(
    reply: Reply, agent: Agent, ends: bool, options: wire.StreamOptions, runtime: Runtime[wire.StreamOptions]
) -> None:
    """The whole text, unless it is told as part of the answer that a call ends the turn with."""
    if usage := reply.message.usage_metadata:
        runtime.stream_writer(spent(usage, agent=agent.name, purpose="answer"))
    if (text := str(reply.message.content)) and not ends:
        runtime.stream_writer(wire.whole_text(text, options, is_final=not reply.message.tool_calls))
