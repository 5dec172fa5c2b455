"""Estimate how many tokens a text or a message has. No tokenizer is called."""

import json
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from graph.marks import provider_data_of

BYTES_PER_TOKEN = 3
"""English has about four bytes a token, code three, Cyrillic more, so that three rather estimates too many tokens.
Dense data (hex, base64) can have fewer than three; `graph.context.model_limits` corrects that."""
TOKENS_PER_MESSAGE = 8
"""The role and the format around the text of a message. Chosen, not measured: rather too many than too few."""
TOKENS_PER_CALL = 16
"""The JSON around the name and the arguments of a call. Chosen, not measured: rather too many than too few."""


def estimate_text_tokens(text: str) -> int:
    """Return the estimated tokens of a text, rounded up; 0 for an empty one."""
    return (len(text.encode(errors="replace")) + BYTES_PER_TOKEN - 1) // BYTES_PER_TOKEN


def estimate_tokens(*messages: BaseMessage, with_envelope: bool = True) -> int:
    """Return the estimated tokens of the messages together.

    With the envelope they count as parts of a prompt: roles, names and ids included. Without it only their texts and
    their calls count, which is all that a model writes itself.
    """
    estimate = _estimate_with_envelope if with_envelope else _estimate_content
    return sum(map(estimate, messages))


def _estimate_with_envelope(message: BaseMessage) -> int:
    names = f"{message.name or ''}{getattr(message, 'tool_call_id', '')}"
    of_calls = sum(
        TOKENS_PER_CALL + estimate_text_tokens(f"{call['id']}{call['name']}{_to_json(call['args'])}")
        for call in getattr(message, "tool_calls", ())
    )
    of_texts = estimate_text_tokens(str(message.content)) + estimate_text_tokens(names)
    return TOKENS_PER_MESSAGE + of_texts + of_calls + _estimate_provider_data(message)


def _estimate_provider_data(message: BaseMessage) -> int:
    """Return the estimated tokens of what only the model that gave it gets back; they count for every model.

    The answer to a call has the call's id once more.
    """
    data = provider_data_of(message) if isinstance(message, AIMessage) else None
    if not data:
        return 0
    ids = [json.loads(call).get("id", "") for call in data["calls"].values()]
    return estimate_text_tokens("".join([data["fields"], *data["calls"].values(), *ids]))


def _estimate_content(message: BaseMessage) -> int:
    of_calls = sum(
        estimate_text_tokens(call["name"]) + estimate_text_tokens(_to_json(call["args"]))
        for call in getattr(message, "tool_calls", ())
    )
    return estimate_text_tokens(message.text) + of_calls


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
