"""Estimate how many tokens a message has; no tokenizer is called."""

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
