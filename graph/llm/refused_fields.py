"""Find the field of a request, or of its messages, that a service names when it refuses the request."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from graph.llm.refusals import Refusal

REQUIRED_FIELDS = frozenset({"model", "messages", "tools", "stream"})
"""A request without them is another request, so they are never left out."""
REFUSING_STATUSES = frozenset({0, 400, 404, 422, 501})
"""The statuses of services that do not accept a field: OpenRouter answers 404, others 501. 0: an error in a stream."""
MIN_WORD_CHARS = 8
"""A name of fewer letters, such as `stop`, must stand in quotes: it may be a word of the sentence. Chosen, not
measured."""
_UNSUPPORTED_VALUE = re.compile(r"does not support (\S+) with this model", re.IGNORECASE)
_UNKNOWN_FIELD = re.compile(
    r"unknown|unsupported|unexpected|unrecogni[sz]ed|extra|additional|forbidden"
    r"|(?:not|n't) (?:be )?(?:support|permit|allow|accept|includ)",
    re.IGNORECASE,
)
"""The words of a service that does not accept a field of a message. Without them it may miss one instead."""
_MISSED_FIELD = re.compile(
    r"missing|required|without|lacks?\b|must (?:be|have|contain|include)|must not be empty", re.IGNORECASE
)
"""The words of a service that requires a field of a message."""
_DOUBTED_FIELDS = re.compile(r"signature|thinking|thought|reasoning|encrypted", re.IGNORECASE)
"""The words of a service that does not believe a field that a model signed."""


def find_refused_field(refusal: Refusal, fields: Mapping[str, Any]) -> str:
    """Return the one of `fields` that the service does not accept; empty if it names none that can be left out.

    Of several names in a message the first one counts: a service that refuses more of them says so again.
    """
    optional = [name for name in fields if name not in REQUIRED_FIELDS]
    if refusal.status not in REFUSING_STATUSES:
        return ""
    if refusal.param:
        root = re.split(r"[.\[]", refusal.param, maxsplit=1)[0]
        if root in REQUIRED_FIELDS or root in fields:
            return root if root in optional else ""
    named = [(match.start(), name) for name in optional if (match := _search_name(name, refusal.message))]
    return min(named)[1] if named else _find_by_value(refusal.message, {name: fields[name] for name in optional})


def _search_name(name: str, message: str) -> re.Match[str] | None:
    word = rf"(?<![\w.]){re.escape(name)}(?!\w)"
    return re.search(word if "_" in name or len(name) >= MIN_WORD_CHARS else rf"""["'`]{name}["'`]""", message)


def _find_by_value(message: str, fields: Mapping[str, Any]) -> str:
    """Return the field whose value the message names, as in "does not support 0.3 with this model"."""
    match = _UNSUPPORTED_VALUE.search(message)
    return next((name for name, value in fields.items() if match and match[1] == json.dumps(value)), "")


def find_refused_message_field(refusal: Refusal, fields: Collection[str]) -> str:
    """Return the one of the `fields` of messages that the service does not accept; empty if it names none.

    Some services send thoughts and do not take them back.
    """
    if refusal.status not in REFUSING_STATUSES or not _UNKNOWN_FIELD.search(f"{refusal.names} {refusal.message}"):
        return ""
    named = re.findall(r"[\w-]+", refusal.param)
    return next((name for name in sorted(fields) if name in named or _quotes_name(name, refusal.message)), "")


def _quotes_name(name: str, message: str) -> bool:
    """Return whether a message has a name as a name: in quotes, in a path, or with an underscore."""
    pattern = rf"(?<!\w){re.escape(name)}(?!\w)" if "_" in name else rf"""["'`.]{re.escape(name)}["'`]"""
    return bool(re.search(pattern, message))


def find_missed_field(refusal: Refusal, fields: Collection[str]) -> str:
    """Return the one of the `fields` of messages that the service misses; empty if it names none."""
    if refusal.status not in REFUSING_STATUSES or not _MISSED_FIELD.search(refusal.message):
        return ""
    return next((name for name in fields if name in refusal.message), "")


def has_doubted_fields(refusal: Refusal) -> bool:
    """Return whether the service complains about thoughts or signatures: it may have forgotten what it signed."""
    return refusal.status in REFUSING_STATUSES and bool(_DOUBTED_FIELDS.search(refusal.message))
