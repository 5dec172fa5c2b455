"""Shorten messages to a bounded length."""

from typing import Any

from langchain_core.messages import AIMessage, AnyMessage

from graph.marks import PROVIDER, provider_data_of
from graph.per_message_cache import PerMessageCache
from graph.usage.tokens import estimate_text_tokens

MAX_OLD_RESULT_CHARS = 1_200
"""Characters of an older tool result: enough to recognise it, and the tool can run again. Chosen, not measured."""

MIN_TRUNCATED_CHARS = 64
"""The shortest length that a text can be cut to: the mark in the middle of a cut text takes that many characters."""


def _truncate_result(message: AnyMessage) -> AnyMessage:
    return truncate_message(message, MAX_OLD_RESULT_CHARS)


_get_truncated_result = PerMessageCache(_truncate_result)


def truncate_tool_result(message: AnyMessage) -> AnyMessage:
    """Return a tool result shortened, always in the same way, and any other message unchanged."""
    return (
        _get_truncated_result(message)
        if message.type == "tool" and len(message.content) > MAX_OLD_RESULT_CHARS
        else message
    )


def truncate_message(message: AnyMessage, max_chars: int) -> AnyMessage:
    """Return the message with each text, also in the arguments of its calls, cut to `max_chars`.

    The fields of its provider are signed, so they are left out whole. Those of its calls stay: no call works without.
    """
    changed: dict[str, Any] = {"content": truncate_text(str(message.content), max_chars)}
    if isinstance(message, AIMessage):
        changed["tool_calls"] = [
            {**call, "args": _truncate_value(call["args"], max_chars)} for call in message.tool_calls
        ]
        if (data := provider_data_of(message)) and len(data["fields"]) > max_chars:
            changed["additional_kwargs"] = {**message.additional_kwargs, PROVIDER: {**data, "fields": ""}}
    return message.model_copy(update=changed)


def _truncate_value(value: Any, max_chars: int) -> Any:
    match value:
        case str():
            return truncate_text(value, max_chars)
        case dict():
            return {name: _truncate_value(item, max_chars) for name, item in value.items()}
        case list():
            return [_truncate_value(item, max_chars) for item in value]
    return value


def truncate_text(text: str, max_chars: int) -> str:
    """Return head and tail of a text that is longer than `max_chars`, which is MIN_TRUNCATED_CHARS or more."""
    if len(text) <= max_chars:
        return text
    marker = f"\n[... {len(text) - max_chars + MIN_TRUNCATED_CHARS} characters left out ...]\n"
    # two thirds for the head: it shows what the text is, the tail how it ended; chosen, not measured
    head = (max_chars - MIN_TRUNCATED_CHARS) * 2 // 3
    tail = max_chars - MIN_TRUNCATED_CHARS - head
    return f"{text[:head]}{marker}{text[len(text) - tail :]}"


def truncate_to_tokens(text: str, max_tokens: int) -> str:
    """Return the text cut to about `max_tokens`."""
    return (
        text
        if estimate_text_tokens(text) <= max_tokens
        else truncate_text(text, max(MIN_TRUNCATED_CHARS, max_tokens * len(text) // estimate_text_tokens(text)))
    )
