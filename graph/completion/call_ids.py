"""Give each call an id that is unique in its conversation and valid on the wire."""

import re
from collections.abc import Iterator, Sequence
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage

from graph import wire
from graph.completion.provider_data import provider_call_ids
from graph.per_message_cache import PerMessageStore

_call_ids: PerMessageStore[frozenset[str | None]] = PerMessageStore()
"""The ids of all calls up to a message, by the message that was the last one of its conversation."""


def collect_call_ids(history: Sequence[AnyMessage]) -> set[str | None]:
    """Return the ids of all calls in a conversation, also those that providers gave.

    Only the messages since the last answer are read again.
    """
    call_ids: set[str | None] = set()
    for message in reversed(history):
        if (earlier := _call_ids.pop(message)) is not None:
            call_ids |= earlier
            break
        call_ids |= {*_ids_of(message)} if isinstance(message, AIMessage) else set()
    if history:
        _call_ids.put(history[-1], frozenset(call_ids))
    return call_ids


def _ids_of(message: AIMessage) -> Iterator[str | None]:
    yield from (call["id"] for call in message.tool_calls)
    yield from provider_call_ids(message)


def assign_call_id(given: str, used_ids: set[str | None]) -> tuple[str, str | None]:
    """Return an id that is unique and valid on the wire, and the provider's own id if it is another one.

    The provider's id is dropped if it is in `used_ids`: services refuse a conversation that has an id twice. Add both
    ids to `used_ids`.
    """
    is_usable = bool(given) and given not in used_ids
    call_id = given if is_usable and re.fullmatch(wire.ID_PATTERN, given) else f"call_{uuid4().hex}"
    used_ids |= {call_id, given}
    return call_id, given if is_usable and given != call_id else None
