"""Convert messages to the OpenAI chat format: for the model, and for the history that clients read.

`message_encoding` adds what goes back to the model only.
"""

import json
import re
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from graph.completion.reply import MAX_NAME_CHARS

THOUGHT_TYPES = ("thinking", "thought", "reasoning", "reasoning_text", "reasoning_content")
"""The types of blocks of a message that are thoughts."""
_INVALID_NAME_CHARS = re.compile(r"[^A-Za-z0-9_-]")
_encode_json = json.JSONEncoder(ensure_ascii=False).encode


def to_openai(message: BaseMessage) -> dict[str, Any]:
    """Return a message that every service accepts. Raises TypeError for a type that no conversation has.

    Services refuse a whole conversation for one odd tool name, or for arguments that are not an object.
    """
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
    raise TypeError(f"a conversation cannot hold a {type(message).__name__}")


def extract_text(content: Any) -> str:
    """Return the text of a message: a text, a block or a list of blocks, whose texts are joined, but for thoughts."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else [content]
    texts = [block.get("text") if isinstance(block, dict) else block for block in blocks if not _is_thought(block)]
    return "".join(text for text in texts if isinstance(text, str))


def _is_thought(block: Any) -> bool:
    """Return whether a block is a thought: of Gemini by its mark, of others by its type."""
    return isinstance(block, dict) and bool(block.get("thought") or block.get("type") in THOUGHT_TYPES)


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
    return _INVALID_NAME_CHARS.sub("_", name or "")[:MAX_NAME_CHARS] or "unknown"
