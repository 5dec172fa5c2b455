"""Estimate how many tokens a message has; no tokenizer is called."""

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, SystemMessage

from graph.per_message_cache import PerMessageCache
from graph.tools.catalog import specification
from graph.usage.tokens import estimate_text_tokens, estimate_tokens
from prompts import Agent


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


get_message_tokens: PerMessageCache[BaseMessage, int] = PerMessageCache(estimate_tokens)
"""The estimated tokens of a message as a part of a prompt, estimated once in its life."""


def sum_message_tokens(messages: Sequence[BaseMessage]) -> int:
    """Return the estimated tokens of messages as parts of a prompt. One loop is faster than a call for each."""
    return sum(get_message_tokens.map_places(messages, lambda place: estimate_tokens(messages[place])))


def estimate_overhead(agent: Agent) -> int:
    """Return the estimated tokens that every call of an agent sends: its prompt and its tools."""
    return estimate_tokens(SystemMessage(agent.prompt)) + estimate_text_tokens(
        to_json([specification(name) for name in agent.tools])
    )
