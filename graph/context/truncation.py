"""Shorten messages to a bounded length."""

from typing import Any

from langchain_core.messages import AIMessage, AnyMessage

from graph.context.token_count import Remembered
from graph.usage.tokens import tokens

BRIEF = 1_200
"""Characters of an older tool result."""

LEAST = 64
"""Characters, that any text can be shortened to."""


def _brief(message: AnyMessage) -> AnyMessage:
    return cut(message, BRIEF)


_briefed = Remembered(_brief)


def brief(message: AnyMessage) -> AnyMessage:
    """A tool result shortened, always in the same way; what else it is given, as it is."""
    return _briefed(message) if message.type == "tool" and len(message.content) > BRIEF else message


def cut(message: AnyMessage, most: int) -> AnyMessage:
    """With no text longer than that, nor in the arguments of its calls."""
    changed: dict[str, Any] = {"content": shortened(str(message.content), most)}
    if isinstance(message, AIMessage):
        changed["tool_calls"] = [{**call, "args": _cut_value(call["args"], most)} for call in message.tool_calls]
    return message.model_copy(update=changed)


def _cut_value(value: Any, most: int) -> Any:
    match value:
        case str():
            return shortened(value, most)
        case dict():
            return {name: _cut_value(item, most) for name, item in value.items()}
        case list():
            return [_cut_value(item, most) for item in value]
    return value


def shortened(text: str, most: int) -> str:
    """Head and tail of what is longer than that many characters, LEAST or more."""
    if len(text) <= most:
        return text
    marker = f"\n[... {len(text) - most + LEAST} characters left out ...]\n"
    head = (most - LEAST) * 2 // 3
    tail = most - LEAST - head
    return f"{text[:head]}{marker}{text[len(text) - tail :]}"


def clipped(text: str, most: int) -> str:
    """To about so many tokens."""
    return text if tokens(text) <= most else shortened(text, max(LEAST, most * len(text) // tokens(text)))
