"""How long a message is for a model, and the same message made shorter. A token is estimated, no tokenizer is asked."""

import json
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from langchain_core.messages import AIMessage, AnyMessage, SystemMessage

from graph.tools.catalog import specification
from graph.usage.tokens import tokens
from prompts import Agent

A_MESSAGE, A_CALL = 8, 16
"""Tokens around the text."""
BRIEF = 1_200
"""Characters of an older tool result."""
LEAST = 64
"""Characters, that any text can be shortened to."""

T = TypeVar("T")


class Remembered(Generic[T]):
    """What was made of a message, for as long as the message lives; it must not hold the message itself."""

    def __init__(self, make: Callable[[AnyMessage], T]) -> None:
        self._make = make
        self._known: dict[int, tuple[Any, T]] = {}

    def __call__(self, message: AnyMessage) -> T:
        key = id(message)
        if known := self._known.get(key):
            return known[1]
        made = self._make(message)
        self._known[key] = (weakref.ref(message, lambda _: self._known.pop(key, None)), made)
        return made


def counted(message: AnyMessage) -> int:
    calls = message.tool_calls if isinstance(message, AIMessage) else ()
    of_calls = sum(A_CALL + tokens(f"{call['id']}{call['name']}{as_json(call['args'])}") for call in calls)
    about = f"{message.name or ''}{getattr(message, 'tool_call_id', '')}"
    return A_MESSAGE + tokens(str(message.content)) + tokens(about) + of_calls


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


weight = Remembered(counted)


def overhead(agent: Agent) -> int:
    """What is sent with every conversation: the prompt, and the tools."""
    return counted(SystemMessage(agent.prompt)) + tokens(as_json([specification(name) for name in agent.tools]))


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
