"""Encode messages for a request. A model that gave an answer gets it back with its own ids and fields."""

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from graph.llm.openai_format import to_openai
from graph.marks import ProviderData, provider_data_of
from graph.per_message_cache import PerMessageStore

_encoded: defaultdict[tuple[str, Collection[str]], PerMessageStore[str]] = defaultdict(PerMessageStore)
"""The encoded messages by model and left out fields. Settings and agents name the models, so they are few."""


def messages_to_json(messages: Sequence[BaseMessage], model: str, without: frozenset[str] = frozenset()) -> str:
    """Return the messages as a JSON list, for a request to `model`, without the provider's fields of some names.

    Each message is encoded once in its life for each model, since a conversation is sent at every step. The answers to
    calls must follow their calls.
    """
    texts = _encoded[model, without].map_places(
        messages, lambda place: json.dumps(_build_message(messages, place, model, without))
    )
    return f"[{', '.join(texts)}]"


def find_provider_fields(messages: Sequence[BaseMessage], model: str) -> set[str]:
    """Return the names of all fields that `model` gets back with these messages, in no order."""
    names: set[str] = set()
    for message in messages:
        if isinstance(message, AIMessage) and (data := _provider_data_for(message, model)):
            for fields in map(_decode, (data["fields"], *data["calls"].values())):
                names |= {*fields, *fields.get("function", {})} - {"id", "function"}
    return names


def _build_message(messages: Sequence[BaseMessage], place: int, model: str, without: Collection[str]) -> dict[str, Any]:
    message = messages[place]
    converted = _fill_empty_content(to_openai(message))
    match message:
        case AIMessage() if data := _provider_data_for(message, model):
            return _restore_fields(converted, data, without)
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


def _restore_fields(converted: dict[str, Any], data: ProviderData, without: Collection[str]) -> dict[str, Any]:
    restored = {**converted, **_decode(data["fields"], without)}
    if calls := converted.get("tool_calls"):
        restored["tool_calls"] = [_restore_call(call, data["calls"].get(call["id"]), without) for call in calls]
    return restored


def _restore_call(call: dict[str, Any], text: str | None, without: Collection[str]) -> dict[str, Any]:
    fields = _decode(text, without)
    of_function = {name: value for name, value in fields.get("function", {}).items() if name not in without}
    return {**call, **fields, "function": {**call["function"], **of_function}}


def _decode(text: str | None, without: Collection[str] = ()) -> dict[str, Any]:
    return {name: value for name, value in json.loads(text or "{}").items() if name not in without}
