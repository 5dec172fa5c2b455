"""Make JSON values storable and readable.

JSON allows what databases refuse: NUL, lone surrogates, integers over 64 bits. Python adds infinity and NaN.
"""

import json
import re
from math import isfinite
from typing import Any

import textsafety

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
LARGE_INTEGER_PLACEHOLDER = "(an integer too large to keep)"
MAX_INTEGER_BITS = 10_000
"""Bits of an integer that becomes text. They are some 3,000 digits, the limit that `parse_integer` keeps as well."""
MAX_INTEGER_DIGITS = 3000
"""Digits of an integer that is read. Python itself refuses more than 4,300, since it would take too long."""


def sanitize_value(value: Any) -> Any:
    """Return the same value, storable everywhere: bad characters become U+FFFD, numbers out of range become text."""
    match value:
        case str():
            return UNSTORABLE.sub("\ufffd", value)
        case dict():
            return {sanitize_value(str(key)): sanitize_value(item) for key, item in value.items()}
        case list():
            return [sanitize_value(item) for item in value]
        case int() if not -(2**63) <= value < 2**63:
            return str(value) if value.bit_length() < MAX_INTEGER_BITS else LARGE_INTEGER_PLACEHOLDER
        case float() if not isfinite(value):
            return str(value)
    return value


def to_storable_json(value: Any) -> str:
    """Return the value as JSON text that is storable everywhere, and gives the same value back when it is read.

    Raises ValueError for infinity and NaN, RecursionError for too many levels.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return json.dumps(value) if UNSTORABLE.search(text) else text


def escape_invisible(value: Any) -> Any:
    """Return the same value with the invisible characters of its texts and keys escaped, as `textsafety` does."""
    match value:
        case str():
            return textsafety.escape_invisible(value)
        case dict():
            return {escape_invisible(key): escape_invisible(item) for key, item in value.items()}
        case list():
            return [escape_invisible(item) for item in value]
    return value


def parse_integer(digits: str) -> Any:
    """Return the integer, or a text if it has more digits than are read. Made for `json.loads(parse_int=...)`."""
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else LARGE_INTEGER_PLACEHOLDER


def is_deeper_than(depth: int, value: Any) -> bool:
    """Return whether more than `depth` objects and lists are nested in each other."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(is_deeper_than(depth - 1, item) for item in inner)
