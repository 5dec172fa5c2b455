"""Build the text that a summary is made of. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from langchain_core.messages import AIMessage, AnyMessage

from graph.context.token_count import to_json
from graph.context.truncation import MAX_OLD_RESULT_CHARS, truncate_message, truncate_to_tokens
from graph.conversation import starts_step, without_asides
from graph.state import WindowState
from graph.usage.tokens import estimate_text_tokens


class Transcript(NamedTuple):
    """A part of a conversation as text, one line of JSON for each message."""

    text: str
    upto: int
    """The place in the conversation that it reaches."""


def build_transcript(messages: Sequence[AnyMessage], memory: WindowState, upto: int, room: int) -> Transcript:
    """Return the transcript of the messages from the last summary up to `upto`, or as many as fit into `room` tokens.

    The first step is always in it, cut if it is too long.
    """
    parts = [to_json({"summary so far": memory["summary"]})] if memory["summary"] else []
    left, end_place = room - sum(map(estimate_text_tokens, parts)), memory["upto"]
    for begin, end in _split_steps(messages, memory["upto"], upto):
        step = "\n".join(_format_message(message) for message in without_asides(messages[begin:end]))
        if estimate_text_tokens(step) > left and end_place > memory["upto"]:
            break
        parts.append(truncate_to_tokens(step, left))
        left, end_place = left - estimate_text_tokens(step), end
    return Transcript("\n".join(parts), end_place)


def _split_steps(messages: Sequence[AnyMessage], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Return the start and the end of each step between two places."""
    places = [place for place in range(start, end) if starts_step(messages[place])]
    return zip(places, [*places[1:], end], strict=True)


def _format_message(message: AnyMessage) -> str:
    """Return a message as one line of JSON, in which no text can pose as another message."""
    brief = truncate_message(message, MAX_OLD_RESULT_CHARS)
    calls = (
        [{"tool": call["name"], "arguments": call["args"]} for call in brief.tool_calls]
        if isinstance(brief, AIMessage)
        else []
    )
    sender = {"human": "user", "ai": "assistant"}.get(message.type, f"result of {message.name}")
    return to_json({"from": sender, "text": brief.content, **({"calls": calls} if calls else {})})
