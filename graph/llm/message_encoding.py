"""Encode messages for a request. A model that gave an answer gets it back with its own ids and fields."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from graph.llm.openai_format import to_openai
from graph.marks import ProviderData, provider_data_of
from graph.per_message_cache import PerMessageStore

_encoded: defaultdict[str, PerMessageStore[str]] = defaultdict(PerMessageStore)
"""The encoded messages by model. Settings and agents name the models, so they are few."""


def messages_to_json(messages: Sequence[BaseMessage], model: str) -> str:
    """Return the messages as a JSON list, for a request to `model`.

    Each message is encoded once in its life for each model, since a conversation is sent at every step. The answers to
    calls must follow their calls.
    """
    texts = _encoded[model].map_places(messages, lambda place: json.dumps(_build_message(messages, place, model)))
    return f"[{', '.join(texts)}]"


def _build_message(messages: Sequence[BaseMessage], place: int, model: str) -> dict[str, Any]:
    message = messages[place]
    converted = _fill_empty_content(to_openai(message))
    match message:
        case AIMessage() if data := _provider_data_for(message, model):
            return _restore_fields(converted, data)
        case ToolMessage() if call := _find_provider_call(messages, place, model):
            return {**converted, "tool_call_id": call.get("id", message.tool_call_id)}
    return converted


def _fill_empty_content(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message with an empty text in place of null: the templates of local models fail on null."""
    return message if message["content"] is not None else {**message, "content": ""}


def _provider_data_for(message: AIMessage, model: str) -> ProviderData | None:
    """Return what the message has for this model: another one would not understand it."""
    data = provider_data_of(message)
    return data if data and data["model"] == model else None


def _find_provider_call(messages: Sequence[BaseMessage], place: int, model: str) -> dict[str, Any]:
    """Return what the provider wants back of the call that the tool message at `place` answers; empty: nothing."""
    answer, step = messages[place], place
    while step > 0 and isinstance(messages[step], ToolMessage):
        step -= 1
    request = messages[step]
    data = _provider_data_for(request, model) if isinstance(request, AIMessage) else None
    return _decode(data["calls"].get(answer.tool_call_id)) if data and isinstance(answer, ToolMessage) else {}


def _restore_fields(converted: dict[str, Any], data: ProviderData) -> dict[str, Any]:
    restored = {**converted, **_decode(data["fields"])}
    if calls := converted.get("tool_calls"):
        restored["tool_calls"] = [_restore_call(call, _decode(data["calls"].get(call["id"]))) for call in calls]
    return restored


def _restore_call(call: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    return {**call, **fields, "function": {**call["function"], **fields.get("function", {})}}


def _decode(text: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(text or "{}")
    return fields
