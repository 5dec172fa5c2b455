"""Encode messages for a request. A model that gave an answer gets it back with its own ids and fields."""

import json
from base64 import b32encode
from collections import defaultdict
from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from graph.llm.openai_format import to_openai
from graph.marks import ProviderData, provider_data_of
from graph.per_message_cache import PerMessageStore

FOREIGN_ID_CHARS = 9
"""Characters of the id of a call that another model made. Mistral accepts no other number."""


class FieldChanges(NamedTuple):
    """The fields that a model does not accept, and those that it requires."""

    without: frozenset[str] = frozenset()
    """The fields of a request and of its messages that are left out."""
    filled: frozenset[str] = frozenset()
    """The fields for which messages with calls that lack them get a placeholder, see FILLABLE_FIELDS."""


UNCHANGED = FieldChanges()

_encoded: defaultdict[tuple[str, FieldChanges], PerMessageStore[str]] = defaultdict(PerMessageStore)
"""The encoded messages by model and changed fields. Settings and agents name the models, so they are few."""

NO_THOUGHTS = "(no thoughts)"
SKIPPED_SIGNATURE = {"google": {"thought_signature": "skip_thought_signature_validator"}}
"""The value that Gemini documents for calls of another model."""
FILLABLE_FIELDS = ("reasoning_content", "thought_signature")
"""The fields that some models require of every message with calls. Another model's message has none of theirs."""


def messages_to_json(messages: Sequence[BaseMessage], model: str, changes: FieldChanges = UNCHANGED) -> str:
    """Return the messages as a JSON list, for a request to `model`, with changed fields of the provider.

    Each message is encoded once in its life for each model, since a conversation is sent at every step. The answers to
    calls must follow their calls.
    """
    without, filled = changes
    texts = _encoded[model, changes].map_places(
        messages, lambda place: json.dumps(_fill_fields(_build_message(messages, place, model, without), filled))
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
        case AIMessage() if _is_foreign(message, model):
            return _replace_call_ids(converted)
        case AIMessage() if data := _provider_data_for(message, model):
            return _restore_fields(converted, data, without)
        case ToolMessage() if request := _find_request(messages, place):
            return {**converted, "tool_call_id": _find_call_id(message.tool_call_id, request, model)}
    return converted


def _is_foreign(message: AIMessage, model: str) -> bool:
    """Return whether another model made the calls of a message."""
    return bool(message.response_metadata.get("model_name", model) != model)


def _replace_call_ids(converted: dict[str, Any]) -> dict[str, Any]:
    calls = [{**call, "id": _shorten_id(call["id"])} for call in converted.get("tool_calls", [])]
    return {**converted, "tool_calls": calls} if calls else converted


def _shorten_id(call_id: str) -> str:
    """Return an id for a model that did not make the call: nine letters and digits, as Mistral wants them."""
    return b32encode(sha256(call_id.encode()).digest())[:FOREIGN_ID_CHARS].decode()


def _fill_fields(message: dict[str, Any], filled: Collection[str]) -> dict[str, Any]:
    """Return the message with a placeholder for each field that it lacks. Gemini signs the first call of a message."""
    calls = message.get("tool_calls")
    if not calls or not filled:
        return message
    if "reasoning_content" in filled and not message.get("reasoning_content"):
        message = {**message, "reasoning_content": NO_THOUGHTS}
    if "thought_signature" in filled and not any("extra_content" in call for call in calls):
        message = {**message, "tool_calls": [{**calls[0], "extra_content": SKIPPED_SIGNATURE}, *calls[1:]]}
    return message


def _fill_empty_content(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message with an empty text in place of null: the templates of local models fail on null."""
    return message if message["content"] is not None else {**message, "content": ""}


def _provider_data_for(message: AIMessage, model: str) -> ProviderData | None:
    """Return what the message has for this model: another one would not understand it."""
    data = provider_data_of(message)
    return data if data and data["model"] == model else None


def _find_request(messages: Sequence[BaseMessage], place: int) -> AIMessage | None:
    """Return the message whose call the tool message at `place` answers."""
    step = place
    while step > 0 and isinstance(messages[step], ToolMessage):
        step -= 1
    request = messages[step]
    return request if isinstance(request, AIMessage) else None


def _find_call_id(call_id: str, request: AIMessage, model: str) -> str:
    """Return the id of a call of `request` as this model knows it."""
    if _is_foreign(request, model):
        return _shorten_id(call_id)
    data = _provider_data_for(request, model)
    return str(_decode(data["calls"].get(call_id)).get("id", call_id)) if data else call_id


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
