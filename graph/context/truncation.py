"""Shorten messages to a bounded length."""

from typing import Any

from langchain_core.messages import AIMessage, AnyMessage

from graph.per_message_cache import PerMessageCache
from graph.usage.tokens import estimate_text_tokens

MAX_OLD_RESULT_CHARS = 1_200
"""Characters of an older tool result."""

MIN_TRUNCATED_CHARS = 64
"""Characters, that any text can be shortened to."""


def _truncate_result(message: AnyMessage) -> AnyMessage:
    return truncate_message(message, MAX_OLD_RESULT_CHARS)


_get_truncated_result = PerMessageCache(_truncate_result)


def truncate_tool_result(message: AnyMessage) -> AnyMessage:
    """A tool result shortened, always in the same way; what else it is given, as it is."""
    return (
        _get_truncated_result(message)
        if message.type == "tool" and len(message.content) > MAX_OLD_RESULT_CHARS
        else message
    )


def truncate_message(message: AnyMessage, max_chars: int) -> AnyMessage:
    """With no text longer than that, nor in the arguments of its calls."""
    changed: dict[str, Any] = {"content": truncate_text(str(message.content), max_chars)}
    if isinstance(message, AIMessage):
        changed["tool_calls"] = [
            {**call, "args": _truncate_value(call["args"], max_chars)} for call in message.tool_calls
        ]
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
    """Head and tail of what is longer than that many characters, LEAST or more."""
    if len(text) <= max_chars:
        return text
    marker = f"\n[... {len(text) - max_chars + MIN_TRUNCATED_CHARS} characters left out ...]\n"
    head = (max_chars - MIN_TRUNCATED_CHARS) * 2 // 3
    tail = max_chars - MIN_TRUNCATED_CHARS - head
    return f"{text[:head]}{marker}{text[len(text) - tail :]}"


def truncate_to_tokens(text: str, max_tokens: int) -> str:
    """To about so many tokens."""
    return (
        text
        if estimate_text_tokens(text) <= max_tokens
        else truncate_text(text, max(MIN_TRUNCATED_CHARS, max_tokens * len(text) // estimate_text_tokens(text)))
    )
