"""Keep with a message what its provider wants back: its own ids of the calls, and the fields that only it reads."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from langchain_core.messages import AIMessage
from typing_extensions import TypedDict

from graph.marks import PROVIDER, ProviderData, provider_data_of
from graph.sanitize import to_storable_json

ANSWER_FIELDS: Final = "provider_fields"
"""In the `response_metadata` of an answer: the `AnswerFields`."""


class AnswerFields(TypedDict):
    """The fields of an answer that only its provider reads. Each text is a JSON object; empty: there are none."""

    message: str
    calls: list[str]
    """Of each call, in the order of the message: those with readable arguments, then the others."""
    places: list[int]
    """The place of each call in the answer, in the order of the message; empty: they stand in it in that order."""


def answer_fields_of(answer: AIMessage) -> AnswerFields:
    fields: AnswerFields = answer.response_metadata.get(ANSWER_FIELDS) or AnswerFields(message="", calls=[], places=[])
    return fields


def provider_call(provider_id: str | None, fields: str) -> str:
    """Return what a provider wants back of a call, see `ProviderData.calls`; empty if there is nothing."""
    own: dict[str, Any] = {"id": provider_id} if provider_id else {}
    return to_storable_json({**own, **json.loads(fields or "{}")}) if own or fields else ""


def provider_call_ids(message: AIMessage) -> Iterator[str]:
    """Yield the ids that the provider gave and the wire does not have."""
    data = provider_data_of(message)
    for fields in map(json.loads, data["calls"].values() if data else ()):
        if "id" in fields:
            yield fields["id"]


def provider_marks(answer: AIMessage, calls: Mapping[str, str]) -> dict[str, ProviderData]:
    """Return the `additional_kwargs` of a new assistant message.

    `calls` has the results of `provider_call` by the id of the call.
    """
    data = ProviderData(
        model=str(answer.response_metadata.get("model_name") or ""),
        fields=answer_fields_of(answer)["message"],
        calls={call_id: text for call_id, text in calls.items() if text},
    )
    return {PROVIDER: data} if data["fields"] or data["calls"] else {}
