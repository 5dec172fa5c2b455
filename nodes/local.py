"""Answer the calls that need no IDE: echo, calculator, the hand-off, the service's question, the end of the turn."""

from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from langgraph.runtime import Runtime

from graph import wire
from graph.conversation import open_calls, pending_service_question, tool_message
from graph.permissions.endings import join_ending, turn_ending
from graph.state import State, StateUpdate, current_agent, handoff
from graph.tools import catalog
from graph.tools.calculator import calculate
from graph.usage.budgets import accept_warning

TURN_ENDING_RESULTS = {
    "attempt_completion": "The turn has ended with this result.",
    "ask_followup_question": "The user was asked; their next message is the answer.",
}


async def local(state: State, runtime: Runtime[wire.StreamOptions]) -> StateUpdate:
    answers: list[ToolMessage] = []
    update: StateUpdate = {}
    for call in open_calls(state):
        if state["gates"][call["id"] or ""]["status"] == "local" and (answer := _answer_call(call, state, runtime)):
            answers.append(answer[0])
            update = {**update, **answer[1]}
    return {**update, "messages": answers}


def _answer_call(
    call: RequestedCall, state: State, runtime: Runtime[wire.StreamOptions]
) -> tuple[ToolMessage, StateUpdate] | None:
    """Return the answer to a call and its other changes of the state. Emit the chunks that belong to it."""
    match call:
        case {"name": "echo", "args": {"text": str(text)}}:
            return tool_message(call, text), {}
        case {"name": "calculator", "args": {"expr": str(expression)}}:
            return _answer_calculator(call, expression), {}
        case {"name": "switch_mode", "args": {"mode": str(mode), **rest}}:
            record, chunk = handoff(current_agent(state), mode, str(rest.get("reason") or ""))
            if record:
                runtime.stream_writer(chunk)
            answer = tool_message(call, f"The {mode} agent holds the conversation now.")
            return answer, {"agent": mode, "switches": record}
        case {"name": catalog.CONTINUE_TOOL} if question := pending_service_question(state):
            return tool_message(call, "The user agreed to go on."), {"spent": accept_warning(state, question)}
        case _ if ending := turn_ending(call):
            _emit_ending(state, *ending, runtime)
            return tool_message(call, TURN_ENDING_RESULTS[call["name"]]), {"ended": True}
    return None


def _answer_calculator(call: RequestedCall, expression: str) -> ToolMessage:
    try:
        return tool_message(call, calculate(expression))
    except ValueError as error:
        return tool_message(call, f"It cannot be computed: {error}.", error=True)


def _emit_ending(state: State, ending: str, metadata: dict[str, Any], runtime: Runtime[wire.StreamOptions]) -> None:
    """Emit the answer that ends the turn: the model's text, if any, and the text of the call."""
    message = next(m for m in reversed(state["messages"]) if isinstance(m, AIMessage))
    text = str(message.content)
    options = runtime.context or wire.StreamOptions()
    answer = join_ending(text, ending, is_sent=options.tokens)
    if options.tokens and (rest := answer[len(text) :]):
        runtime.stream_writer(wire.AssistantMessage(token=rest))
    runtime.stream_writer(wire.assistant_chunk(answer, options, is_final=True, metadata=metadata))
