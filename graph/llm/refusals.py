"""Read what a model service says when it refuses a request: an error body, or an `error` object in an answer.

Services disagree about the shape. `Refusal` has the parts that they share. `refusal_kinds` judges them.
"""

import html
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from graph.llm.redaction import clean_message

MAX_ERROR_BYTES = 64 * 1024
"""Bytes of an error body that are read. Real ones have a few hundred. Chosen, not measured."""
MAX_MESSAGE_CHARS = 4_000
"""Characters of a message that are searched. Gateways put their own words before the provider's. Chosen, not
measured."""
MAX_WRAPPERS = 6
"""Levels of `error`, `detail` and texts of JSON around the provider's own words. Chosen, not measured."""
WRAPPERS = ("error", "errors", "detail", "fault", "base_resp")
_MESSAGE_FIELDS = ("message", "msg", "error_message", "error_msg", "status_msg", "faultstring", "reason", "title")
_ERROR_FIELDS = ("error", "errors", "detail", "fault", "error_code", "error_msg", "error_message")
"""The fields that only an error has."""
_ERROR_WORDS = re.compile(r"error|exception|fail|[45]\d\d", re.IGNORECASE)
_SUCCESS_CODES = frozenset({"", "0", "200", "ok", "success"})
_STATUS = re.compile(r"[45]\d\d")
_EMPTY_WORDS = frozenset({"none", "null"})


class Refusal(NamedTuple):
    """The parts of a refusal. A text is empty and a number 0 if the service does not say it."""

    status: int = 0
    """The HTTP status, or the one that an error object in a stream names."""
    code: str = ""
    type: str = ""
    param: str = ""
    """The field of the request that the service names."""
    message: str = ""
    """The service's words as they came, at most MAX_MESSAGE_CHARS. They may hold secrets; see `describe`."""
    context_tokens: int = 0
    """The model's window, if the service has a field for it."""
    counted_tokens: int = 0
    """The tokens of the request, if the service has a field for them."""

    @property
    def names(self) -> str:
        """Return code and type, in lower case and without underscores: services write them in several ways."""
        return f"{self.code} {self.type}".casefold().replace("_", "")

    def describe(self, secrets: Sequence[str] = ()) -> str:
        """Return one line for the log. It has none of the `secrets`, and no other text that looks like a key."""
        named = [("status", str(self.status or "")), ("code", self.code), ("type", self.type), ("param", self.param)]
        parts = ", ".join(f"{name} {clean_message(value, secrets)}" for name, value in named if value)
        reason = clean_message(self.message, secrets)
        return f"{parts or 'no status'}{': ' if reason else ''}{reason}"


def read_refusal(status: int, body: bytes) -> Refusal:
    """Return the refusal of an HTTP status and its body: JSON of any shape, an event, HTML or text."""
    text = body.decode("utf-8", "replace").strip("\ufeff \t\r\n")
    for candidate in (text, *_split_events(text)):
        value = _parse_json(candidate)
        if isinstance(value, dict | list):
            return refusal_from_error(value, status)
    return Refusal(status=status, message=_extract_plain_text(text))


def is_error(answer: dict[str, Any]) -> bool:
    """Return whether an object without choices reports an error. Some services send one with HTTP status 200.

    A message alone may be a word about the state of a queue, so it needs a code, or a type that says error.
    """
    if any(answer.get(name) for name in _ERROR_FIELDS):
        return True
    wrapped = answer.get("base_resp")  # MiniMax
    fields = wrapped if isinstance(wrapped, dict) else answer
    codes = [_coerce_text(fields.get(name)).casefold() for name in ("code", "status_code")]
    kinds = [_coerce_text(fields.get(name)) for name in ("type", "status", "event")]
    has_code = any(code not in _SUCCESS_CODES for code in codes) or any(map(_ERROR_WORDS.search, kinds))
    return has_code and bool(_find_message(fields))


def refusal_from_error(error: Any, status: int = 0) -> Refusal:
    """Return the refusal of a parsed error. Without a `status` the error's own one counts."""
    fields = _unwrap(error)
    codes = [_coerce_text(fields.get(name)) for name in ("code", "error_code", "status", "status_code")]
    name = next((code for code in codes if code and not _STATUS.fullmatch(code)), "")
    number = next((int(code) for code in codes if _STATUS.fullmatch(code)), 0)
    return Refusal(
        status=status or number,
        code=name,
        type=_coerce_text(fields.get("type") or fields.get("error_type")),
        param=_coerce_text(fields.get("param")) or _join_location(fields.get("loc")),
        message=fields["message"][:MAX_MESSAGE_CHARS],
        context_tokens=_coerce_count(fields.get("n_ctx")),
        counted_tokens=_coerce_count(fields.get("n_prompt_tokens")),
    )


def _unwrap(value: Any) -> dict[str, Any]:
    """Return the fields of an error and of everything around it; the inner ones win.

    A gateway may quote the provider's JSON in its own message. The words before it stay, since they name a class.
    """
    fields: dict[str, Any] = {}
    prefixes: list[str] = []
    for _ in range(MAX_WRAPPERS):
        while isinstance(value, list):
            value = value[0] if value else None
        inner = value
        if isinstance(value, str):
            prefix, inner = _split_quoted_json(value)
            before = _coerce_text(fields.get("message"))
            fields["message"] = value if not before or before in value else f"{before} ({value})"
            prefixes += [prefix] if inner else []
        if not isinstance(inner, dict):
            break
        fields |= {name: item for name, item in inner.items() if item not in (None, "")}
        fields["message"] = _find_message(inner) or fields.get("message")
        value = next(_iter_inner(inner), None)
    fields["message"] = "".join([*prefixes, _coerce_text(fields.get("message"))])
    return fields


def _iter_inner(fields: dict[str, Any]) -> Iterator[Any]:
    """Yield what may hold the provider's own words: a wrapped object, or a message that is or holds JSON."""
    yield from (fields[name] for name in WRAPPERS if fields.get(name))
    if isinstance(fields.get("message"), dict | list):  # Mistral
        yield fields["message"]
    yield from (value for name in _MESSAGE_FIELDS if isinstance(value := fields.get(name), dict | list) and value)
    metadata = fields.get("metadata")
    texts = [metadata.get("raw") if isinstance(metadata, dict) else None, _find_message(fields)]
    yield from (text for text in texts if isinstance(text, str) and _split_quoted_json(text)[1])


def _split_quoted_json(text: str) -> tuple[str, Any]:
    """Return the words before the JSON object in a text, and the object; None if there is none."""
    start = text.find("{")
    if start < 0:
        return text, None
    try:
        return text[:start], json.JSONDecoder().raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        return text, None


def _find_message(fields: dict[str, Any]) -> str:
    return next((text for name in _MESSAGE_FIELDS if (text := _coerce_text(fields.get(name)))), "")


def _join_location(location: Any) -> str:
    """Return the field of a pydantic location such as `["body", "temperature"]`."""
    parts = [str(part) for part in location if part != "body"] if isinstance(location, list) else []
    return ".".join(parts)


def _split_events(text: str) -> list[str]:
    """Return the data of the events, if a service refuses in the form of a stream."""
    return [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]


def _extract_plain_text(text: str) -> str:
    """Return the title of a page, or its text, or the text that it is."""
    if not text.startswith("<"):
        return text[:MAX_MESSAGE_CHARS]
    title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
    return html.unescape(title[1] if title else re.sub(r"<[^<>]*>", " ", text))[:MAX_MESSAGE_CHARS]


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _coerce_text(value: Any) -> str:
    """Return a text or an integer as text; empty for a word that means nothing, such as LiteLLM's `None`."""
    text = str(value).strip() if isinstance(value, str) or type(value) is int else ""
    return "" if text.casefold() in _EMPTY_WORDS else text


def _coerce_count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
