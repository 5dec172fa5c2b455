"""Checks of every conversation: of a history, and of the messages that a model is sent."""

import json
import re
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from graph.llm.message_encoding import messages_to_json
from graph.llm.openai_format import to_openai
from tests.support.history_rules import find_faults

Message = dict[str, Any]


def check_conversation(messages: Sequence[Message]) -> list[str]:
    """Return the ids of the calls that no tool message answers; only the last assistant message may have any.

    Raises AssertionError if a call or an answer is out of place.
    """
    known: set[str] = set()
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
            continue
        assert waiting == []
        waiting = [call["id"] for call in message.get("tool_calls", [])]
        assert all(
            isinstance(json.loads(call["function"]["arguments"]), dict) for call in message.get("tool_calls", [])
        )
        assert len(known | {*waiting}) == len(known) + len(waiting)
        known |= {*waiting}
    return waiting


def check_model_input(messages: Sequence[BaseMessage]) -> None:
    """Check what a model is sent: a valid conversation without open calls, which every service accepts."""
    assert [message.type for message in messages].count("system") == 1
    assert messages[0].type == "system"
    assert messages[-1].type in ("human", "tool")
    assert check_conversation([to_openai(message) for message in messages[1:]]) == []
    assert find_faults(json.loads(messages_to_json(messages, ""))) == {}
    named = [call["name"] for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    named += [str(message.name) for message in messages if isinstance(message, ToolMessage)]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in named)
    assert "continue_work" not in named
