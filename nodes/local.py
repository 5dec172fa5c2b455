"""Answer the calls that need no IDE: echo and calculator, the hand-off, and the two that end the turn."""

from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from langgraph.runtime import Runtime

from graph import wire
from graph.calculator import calculate
from graph.state import State, answer, hand_over, holder, open_calls


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
        case {"name": "attempt_completion", "args": {"result": str(result)}}:
            update["messages"].append(answer(call, "The turn has ended with this result."))
            update.update(_ended(state, result, {"completion": True}, runtime))
        case {"name": "ask_followup_question", "args": {"question": str(question), **rest}}:
            update["messages"].append(answer(call, "The user was asked; their next message is the answer."))
            about = {"question": True, "suggestions": rest.get("suggestions") or []}
            update.update(_ended(state, question, about, runtime))


def _calculated(call: RequestedCall, expression: str) -> ToolMessage:
    try:
        return answer(call, calculate(expression))
    except ValueError as error:
        return answer(call, f"It cannot be computed: {error}.", error=True)


def _ended(
    state: State, conclusion: str, about: dict[str, Any], runtime: Runtime[wire.StreamOptions]
) -> dict[str, Any]:
    """The answer is the model's text, if any, and what the call said."""
    asked = next(m for m in reversed(state["messages"]) if isinstance(m, AIMessage))
    text = str(asked.content)
    options = runtime.context or wire.StreamOptions()
    rest = f"\n\n{conclusion}" if text else conclusion
    if options.tokens:
        runtime.stream_writer(wire.AssistantMessage(token=rest))
    runtime.stream_writer(wire.whole_text(text + rest, options, is_final=True, metadata=about))
    return {"ended": True}
