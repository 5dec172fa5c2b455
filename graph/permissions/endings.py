"""Read the calls that end a turn, and make one answer of such a call and the text beside it. Pure."""

from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages import ToolCall as RequestedCall

SENTENCE_ENDS = ".!?:;…。\n"
"""Characters that may end a sentence or a line. A text that stands between two of them was said."""


def turn_ending(call: RequestedCall) -> tuple[str, dict[str, Any]] | None:
    """Return the text of a call that ends the turn and the metadata of the answer; None for any other call."""
    match call:
        case {"name": "attempt_completion", "args": {"result": str(result)}}:
            return result, {"completion": True}
        case {"name": "ask_followup_question", "args": {"question": str(question), **rest}}:
            return question, {"question": True, "suggestions": rest.get("suggestions") or []}
    return None


def fill_result(message: AIMessage) -> AIMessage:
    """Return the message with its text as the result of an `attempt_completion` that has none."""
    match message.tool_calls:
        case [{"name": "attempt_completion", "args": arguments} as call] if str(message.content).strip():
            if not str(arguments.get("result") or "").strip():
                filled = {**arguments, "result": str(message.content).strip()}
                return message.model_copy(update={"tool_calls": [{**call, "args": filled}]})
    return message


def join_ending(text: str, ending: str, *, is_sent: bool = False) -> str:
    """Return the answer of a call that ends the turn: the text beside it and its own text, the same words only once.

    With `is_sent` the client has the text already, token by token, so the answer begins with it.
    """
    said, ended = text.strip(), ending.strip()
    if said and _holds(said, ended):
        return text
    if not _holds(ended, said):
        return f"{text}\n\n{ending}"
    if not is_sent:
        return ending
    return text + ending.removeprefix(said) if not said or ending.startswith(said) else f"{text}\n\n{ending}"


def _holds(whole: str, part: str) -> bool:
    """Return whether the part is empty, or some sentences or lines at the beginning, at the end or within the whole."""
    if whole.startswith(part):
        return part == whole or not part or part[-1] in SENTENCE_ENDS or whole[len(part)] in SENTENCE_ENDS
    if whole.endswith(part):
        return whole[: -len(part)].rstrip(" \t")[-1] in SENTENCE_ENDS
    return f"\n{part}\n" in whole
