"""What a summary is to be made of. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from langchain_core.messages import AIMessage, AnyMessage

from graph.context.token_count import as_json
from graph.context.truncation import BRIEF, clipped, cut
from graph.conversation import begins_a_step, for_model
from graph.state import Memory
from graph.usage.tokens import tokens


class Material(NamedTuple):
    text: str
    upto: int
    """How far it reaches: no further than fits."""


def material(messages: Sequence[AnyMessage], memory: Memory, upto: int, room: int) -> Material:
    parts = [as_json({"summary so far": memory["summary"]})] if memory["summary"] else []
    left, reached = room - sum(map(tokens, parts)), memory["upto"]
    for begin, end in _steps(messages, memory["upto"], upto):
        told = "\n".join(_told(message) for message in for_model(messages[begin:end]))
        if tokens(told) > left and reached > memory["upto"]:
            break
        parts.append(clipped(told, left))
        left, reached = left - tokens(told), end
    return Material("\n".join(parts), reached)


def _steps(messages: Sequence[AnyMessage], start: int, end: int) -> Iterator[tuple[int, int]]:
    places = [place for place in range(start, end) if begins_a_step(messages[place])]
    return zip(places, [*places[1:], end], strict=True)


def _told(message: AnyMessage) -> str:
    """One line of JSON: whatever a text holds, it cannot be taken for another message."""
    brief = cut(message, BRIEF)
    calls = (
        [{"tool": call["name"], "arguments": call["args"]} for call in brief.tool_calls]
        if isinstance(brief, AIMessage)
        else []
    )
    who = {"human": "user", "ai": "assistant"}.get(message.type, f"result of {message.name}")
    return as_json({"from": who, "text": brief.content, **({"calls": calls} if calls else {})})
