"""Answer the calls that need no IDE: echo and calculator, the hand-off, and the two that end the turn."""

from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from langgraph.runtime import Runtime

from graph import wire
from graph.conversation import answer, open_calls, own_question
from graph.permissions.decisions import conclusion
from graph.state import State, hand_over, holder
from graph.tools import catalog
from graph.tools.calculator import calculate
from graph.usage.budgets import agreed

ENDED = {
    "attempt_completion": "The turn has ended with this result.",
    "ask_followup_question": "The user was asked; their next message is the answer.",
}


async def local(state: State, runtime: Runtime[wire.StreamOptions]) -> dict[str, Any]:
    update: dict[str, Any] = {"messages": []}
    for call in open_calls(state):
        if state["gates"][call["id"] or ""]["status"] == "local":
            _answered(call, state, update, runtime)
    return update


def _answered(call: RequestedCall, state: State, update: dict[str, Any], runtime: Runtime[wire.StreamOptions]) -> None:
    match call:
        case {"name": "echo", "args": {"text": str(text)}}:
            update["messages"].append(answer(call, text))
        case {"name": "calculator", "args": {"expr": str(expression)}}:
            update["messages"].append(_calculated(call, expression))
        case {"name": "switch_mode", "args": {"mode": str(mode), **rest}}:
            record, told = hand_over(holder(state), mode, str(rest.get("reason") or ""))
            runtime.stream_writer(told)
            update["messages"].append(answer(call, f"The {mode} agent holds the conversation now."))
            update.update(agent=mode, switches=record)
        case {"name": catalog.CONTINUE} if question := own_question(state):
            update["messages"].append(answer(call, "The user agreed to go on."))
            update["spent"] = agreed(state, question)
        case _ if ending := conclusion(call):
            update["messages"].append(answer(call, ENDED[call["name"]]))
            update.update(_ended(state, *ending, runtime))


def _calculated(call: RequestedCall, expression: str) -> ToolMessage:
    try:
        return answer(call, calculate(expression))
    except ValueError as error:
        return answer(call, f"It cannot be computed: {error}.", error=True)


def _ended(state: State, said: str, about: dict[str, Any], runtime: Runtime[wire.StreamOptions]) -> dict[str, Any]:
    """The answer is the model's text, if any, and what the call said."""
    asked = next(m for m in reversed(state["messages"]) if isinstance(m, AIMessage))
    text = str(asked.content)
    options = runtime.context or wire.StreamOptions()
    rest = f"\n\n{said}" if text else said
    if options.tokens:
        runtime.stream_writer(wire.AssistantMessage(token=rest))
    runtime.stream_writer(wire.whole_text(text + rest, options, is_final=True, metadata=about))
    return {"ended": True}
