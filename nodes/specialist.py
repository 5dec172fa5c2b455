"""One model call of one specialist: its prompt, its tools, the conversation so far."""

from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime

from graph import wire
from graph.errors import AgentRuntimeError, LimitReached, LLMInvalidAnswer
from graph.gate import ends_turn
from graph.reply import Reply, complete
from graph.state import State
from graph.stop import stoppable
from graph.tools import specification
from prompts import Agent


async def specialist(
    state: State, runtime: Runtime[wire.StreamOptions], *, agent: Agent, llm: BaseChatModel, max_calls: int
) -> dict[str, Any]:
    options = runtime.context or wire.StreamOptions()
    tools = [specification(name) for name in agent.tools]
    try:
        _within(state, max_calls)
        call = complete(
            llm.bind_tools(tools, parallel_tool_calls=options.parallel_tools),
            [SystemMessage(agent.prompt), *state["messages"]],
            _teller(options, runtime),
            parallel=options.parallel_tools,
        )
        reply = await stoppable(call)
        if not str(reply.message.content).strip() and not reply.message.tool_calls:
            raise LLMInvalidAnswer("The model answered with nothing. Send the message again.")
    except AgentRuntimeError as error:
        runtime.stream_writer(wire.failure(error))
        return {"ended": True}
    _tell(reply, agent.name, options, runtime)
    return {"messages": [reply.message, *reply.answers], "ended": not reply.message.tool_calls}


def _within(state: State, max_calls: int) -> None:
    """Raises LimitReached when the model was asked too often since the user's last message."""
    made = 0
    for message in reversed(state["messages"]):
        if isinstance(message, HumanMessage):
            break
        made += isinstance(message, AIMessage)
    if made >= max_calls:
        raise LimitReached(f"The turn was stopped after {made} model calls. Send a message to go on.")


def _teller(options: wire.StreamOptions, runtime: Runtime[wire.StreamOptions]) -> Callable[[str], None]:
    def tell(text: str) -> None:
        if options.tokens:
            runtime.stream_writer(wire.AssistantMessage(token=text))

    return tell


def _tell(reply: Reply, agent: str, options: wire.StreamOptions, runtime: Runtime[wire.StreamOptions]) -> None:
    """The whole text, unless it is told as part of the answer that a call ends the turn with."""
    if usage := reply.message.usage_metadata:
        spent = {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]}
        runtime.stream_writer(wire.Usage(**spent, total_tokens=usage["total_tokens"], model_calls=1))
    text, calls = str(reply.message.content), reply.message.tool_calls
    if text and not any(ends_turn(agent, call["name"], call["args"]) for call in calls if not reply.answers):
        runtime.stream_writer(wire.whole_text(text, options, is_final=not calls))
