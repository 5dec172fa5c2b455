"""Messages in the OpenAI chat format: what the model is sent, and what clients read as a session's history."""

import json
import re
import weakref
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

_INVALID_NAME_CHARS = re.compile(r"[^A-Za-z0-9_-]")
_encode_json = json.JSONEncoder(ensure_ascii=False).encode
_json_cache: dict[int, tuple[Any, str]] = {}


def messages_to_json(messages: Sequence[BaseMessage]) -> str:
    """Their `to_openai`s as a JSON list. Each is encoded once in its life: a conversation is sent at every step."""
    return f"[{', '.join([known[1] if (known := _json_cache.get(id(m))) else _encode_and_cache(m) for m in messages])}]"


def _encode_and_cache(message: BaseMessage) -> str:
    key = id(message)
    encoded = json.dumps(_fill_empty_content(to_openai(message)))
    _json_cache[key] = (weakref.ref(message, lambda _: _json_cache.pop(key, None)), encoded)
    return encoded


def _fill_empty_content(message: dict[str, Any]) -> dict[str, Any]:
    """Nothing said is said as an empty text: the templates of local models fall over null."""
    return message if message["content"] is not None else {**message, "content": ""}


def to_openai(message: BaseMessage) -> dict[str, Any]:
    """Always valid: services refuse a whole conversation for one odd tool name, or for arguments that are no object."""
    match message:
        case SystemMessage():
            return {"role": "system", "content": extract_text(message.content)}
        case HumanMessage():
            return {"role": "user", "content": extract_text(message.content)}
        case AIMessage():
            return _convert_assistant(message)
        case ToolMessage():
            name = {"name": _sanitize_name(message.name)} if message.name else {}
            return {
                "role": "tool",
                "content": extract_text(message.content),
                "tool_call_id": message.tool_call_id,
                **name,
            }
    raise TypeError(f"A {type(message).__name__} has no place in a conversation.")


def extract_text(content: Any) -> str:
    """A message's text; of a list of blocks the texts, joined."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    texts = [block.get("text") if isinstance(block, dict) else block for block in blocks]
    return "".join(text for text in texts if isinstance(text, str))


def _convert_assistant(message: AIMessage) -> dict[str, Any]:
    calls = [_convert_tool_call(call["id"], call["name"], call["args"]) for call in message.tool_calls]
    text = extract_text(message.content)
    if not calls:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": text or None, "tool_calls": calls}


def _convert_tool_call(call_id: str | None, name: str | None, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": _sanitize_name(name), "arguments": _encode_json(arguments)}
    return {"id": call_id or "", "type": "function", "function": function}


def _sanitize_name(name: str | None) -> str:
    return _INVALID_NAME_CHARS.sub("_", name or "")[:64] or "unknown"
