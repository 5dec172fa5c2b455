"""What a summary is to be made of. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from langchain_core.messages import AIMessage, AnyMessage

from graph.context.token_count import to_json
from graph.context.truncation import MAX_OLD_RESULT_CHARS, truncate_message, truncate_to_tokens
from graph.conversation import starts_step, without_asides
from graph.state import WindowState
from graph.usage.tokens import estimate_text_tokens


class Transcript(NamedTuple):
    text: str
    upto: int
    """How far it reaches: no further than fits."""


def build_transcript(messages: Sequence[AnyMessage], memory: WindowState, upto: int, room: int) -> Transcript:
    parts = [to_json({"summary so far": memory["summary"]})] if memory["summary"] else []
    left, reached = room - sum(map(estimate_text_tokens, parts)), memory["upto"]
    for begin, end in _split_steps(messages, memory["upto"], upto):
        told = "\n".join(_format_message(message) for message in without_asides(messages[begin:end]))
        if estimate_text_tokens(told) > left and reached > memory["upto"]:
            break
        parts.append(truncate_to_tokens(told, left))
        left, reached = left - estimate_text_tokens(told), end
    return Transcript("\n".join(parts), reached)


def _split_steps(messages: Sequence[AnyMessage], start: int, end: int) -> Iterator[tuple[int, int]]:
    places = [place for place in range(start, end) if starts_step(messages[place])]
    return zip(places, [*places[1:], end], strict=True)


def _format_message(message: AnyMessage) -> str:
    """One line of JSON: whatever a text holds, it cannot be taken for another message."""
    brief = truncate_message(message, MAX_OLD_RESULT_CHARS)
    calls = (
        [{"tool": call["name"], "arguments": call["args"]} for call in brief.tool_calls]
        if isinstance(brief, AIMessage)
        else []
    )
    who = {"human": "user", "ai": "assistant"}.get(message.type, f"result of {message.name}")
    return to_json({"from": who, "text": brief.content, **({"calls": calls} if calls else {})})
