"""Collect the fields of an answer that this service does not read, since its provider may need them again.

Reasoning models sign their thoughts, and refuse a conversation in which a signature is missing. Every field is kept
that no list of known fields names. Streams send fields in pieces, which are joined at the end.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from graph.sanitize import is_deeper_than, to_storable_json
from graph.tools.coercion import MAX_DEPTH

log = logging.getLogger("agent_runtime.llm")

MAX_BYTES = 512 * 1024
"""Bytes of all fields of one answer. The longest answers of today's models, thoughts included, have 128,000
tokens, each about four bytes."""
MAX_ID_CHARS = 64_000
"""Characters of the id of a call. LiteLLM puts Gemini's signature into it, which has hundreds to some thousands, so
this leaves a margin. Chosen, not measured."""
MESSAGE_FIELDS = frozenset(
    {"role", "content", "tool_calls", "refusal", "function_call", "audio", "annotations", "name", "parsed"}
)
"""The fields of a message that are read, or that services send but do not take back."""
CALL_FIELDS = frozenset({"index", "id", "type", "function"})
FUNCTION_FIELDS = frozenset({"name", "arguments", "parsed_arguments"})
_REPEATED = frozenset({"id", "type", "format", "name", "role", "model"})
"""Texts that streams repeat with each piece. All other texts are continued, except signatures."""
_STREAMED_TEXTS = ("text", "thinking", "summary")
"""The text of a thought, in the words of OpenRouter and LiteLLM."""


class MessageFields:
    """The fields of one message that are not in MESSAGE_FIELDS, so far."""

    def __init__(self) -> None:
        self._pieces: list[dict[str, Any]] = []
        self._whole: dict[str, Any] = {}

    def add_delta(self, delta: dict[str, Any]) -> None:
        if fields := _get_unknown(delta, MESSAGE_FIELDS):
            self._pieces.append(fields)

    def add_whole(self, message: dict[str, Any]) -> None:
        self._whole |= _get_unknown(message, MESSAGE_FIELDS)

    def join(self) -> dict[str, Any]:
        """Return the fields. A whole message after deltas sums up what has come, so it only adds what has not."""
        return {**join_pieces([self._whole]), **join_pieces(self._pieces)}


def get_call_fields(part: dict[str, Any], function: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the unknown fields of a call or a part of one, and those of its `function`, as one piece or none."""
    fields, of_function = _get_unknown(part, CALL_FIELDS), _get_unknown(function, FUNCTION_FIELDS)
    if of_function:
        fields["function"] = of_function
    return [fields] if fields else []


def _get_unknown(part: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Return the fields that are not known. Null is no value."""
    if part.keys() <= known:
        return {}
    return {name: value for name, value in part.items() if name not in known and value is not None}


def join_pieces(pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of which a stream sent these pieces, but for those with too many levels."""
    deep = {name for piece in pieces for name, value in piece.items() if is_deeper_than(MAX_DEPTH, value)}
    for name in deep:
        _log_loss(name, "has too many levels")
    return _merge_objects([{name: piece[name] for name in piece if name not in deep} for piece in pieces])


class FieldEncoder:
    """An encoder for the fields of one answer, which drops those beyond MAX_BYTES whole."""

    def __init__(self) -> None:
        self._left = MAX_BYTES

    def keep_id(self, call_id: str | None) -> str | None:
        """Return the id of a call; None if it is too long."""
        if call_id and len(call_id) > MAX_ID_CHARS:
            _log_loss("id", f"has {len(call_id)} characters")
            return None
        return call_id

    def encode(self, fields: dict[str, Any]) -> str:
        """Return the fields as a JSON object; empty if there are none."""
        texts = [
            f"{to_storable_json(name)}: {text}"
            for name, value in fields.items()
            if (text := self._encode_value(name, value))
        ]
        return f"{{{', '.join(texts)}}}" if texts else ""

    def _encode_value(self, name: str, value: Any) -> str:
        """Return the value as JSON text; empty if JSON does not have it, or it does not fit."""
        try:
            text = to_storable_json(value)
        except ValueError:
            _log_loss(name, "holds a number that JSON does not have")
            return ""
        if (size := len(text.encode())) > self._left:
            _log_loss(name, f"has {size} bytes, and {self._left} are left")
            return ""
        self._left -= size
        return text


def _log_loss(name: str, reason: str) -> None:
    log.warning("the field %.64s of an answer is not kept, since it %s; its provider may miss it", ascii(name), reason)


def _join_values(name: str, values: Sequence[Any]) -> Any:
    """Return the value of which a stream sent these pieces. Of numbers, and of pieces of several types, the last wins.

    Texts are continued, objects are merged, lists are extended.
    """
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, str) for value in values):
        is_whole = name in _REPEATED or name.lower().endswith("signature")
        return next(filter(None, reversed(values)), "") if is_whole else "".join(values)
    if all(isinstance(value, dict) for value in values):
        return _merge_objects(values)
    if all(isinstance(value, list) for value in values):
        return [_merge_objects(group) if len(group) > 1 else group[0] for group in _group_items(values)]
    return values[-1]


def _merge_objects(objects: Iterable[dict[str, Any]]) -> dict[str, Any]:
    pieces: dict[str, list[Any]] = {}
    for each in objects:
        for name, value in each.items():
            pieces.setdefault(name, []).append(value)
    return {
        name: _join_values(name, [value for value in values if value is not None] or [None])
        for name, values in pieces.items()
    }


def _group_items(lists: Iterable[list[Any]]) -> list[list[Any]]:
    """Return the items of the lists, with the pieces of one item together.

    Pieces have the same `index`, type and id. A thought without an index is continued until its signature comes.
    """
    groups: list[list[Any]] = []
    by_index: dict[Any, list[Any]] = {}
    latest: dict[int, tuple[Any, Any]] = {}
    for items in lists:
        for place, item in enumerate(items):
            index = item.get("index") if isinstance(item, dict) else None
            if isinstance(index, int):
                kind = latest[index] = _identify(item, latest.get(index, ("", "")))
                if group := by_index.get((index, kind)):
                    group.append(item)
                    continue
                by_index[index, kind] = [item]
                groups.append(by_index[index, kind])
            elif place == 0 and groups and _continues_thought(groups[-1], item):
                groups[-1].append(item)
            else:
                groups.append([item])
    return groups


def _identify(item: dict[str, Any], latest: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return type and id of an item; those of the latest item of its index where it has none."""
    kind, item_id = (value if isinstance(value := item.get(name), str) else "" for name in ("type", "id"))
    kind = kind or latest[0]
    return kind, item_id or (latest[1] if kind == latest[0] else "")


def _continues_thought(group: Sequence[Any], item: Any) -> bool:
    before = group[-1]
    if not isinstance(before, dict) or not isinstance(item, dict) or before.get("signature"):
        return False
    kind = item.get("type")
    return (
        isinstance(kind, str)
        and kind.startswith(("thinking", "reasoning"))
        and kind == before.get("type")
        and any(name in before for name in _STREAMED_TEXTS)
    )
