"""Estimate how many tokens a message has; no tokenizer is called."""

import json
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from langchain_core.messages import AIMessage, AnyMessage, SystemMessage

from graph.tools.catalog import specification
from graph.usage.tokens import estimate_text_tokens
from prompts import Agent

TOKENS_PER_MESSAGE, TOKENS_PER_CALL = 8, 16
"""Tokens around the text."""

T = TypeVar("T")


class PerMessageCache(Generic[T]):
    """What was made of a message, for as long as the message lives; it must not hold the message itself."""

    def __init__(self, make: Callable[[AnyMessage], T]) -> None:
        self._make = make
        self._cache: dict[int, tuple[Any, T]] = {}

    def __call__(self, message: AnyMessage) -> T:
        key = id(message)
        if known := self._cache.get(key):
            return known[1]
        made = self._make(message)
        self._cache[key] = (weakref.ref(message, lambda _: self._cache.pop(key, None)), made)
        return made


def estimate_message_tokens(message: AnyMessage) -> int:
    calls = message.tool_calls if isinstance(message, AIMessage) else ()
    of_calls = sum(
        TOKENS_PER_CALL + estimate_text_tokens(f"{call['id']}{call['name']}{to_json(call['args'])}") for call in calls
    )
    about = f"{message.name or ''}{getattr(message, 'tool_call_id', '')}"
    return TOKENS_PER_MESSAGE + estimate_text_tokens(str(message.content)) + estimate_text_tokens(about) + of_calls


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


get_message_tokens = PerMessageCache(estimate_message_tokens)


def estimate_overhead(agent: Agent) -> int:
    """What is sent with every conversation: the prompt, and the tools."""
    return estimate_message_tokens(SystemMessage(agent.prompt)) + estimate_text_tokens(
        to_json([specification(name) for name in agent.tools])
    )
