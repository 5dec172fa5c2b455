"""What JSON allows and storage does not: NUL, lone surrogates, integers over 64 bits; and infinity."""

import re
from math import isfinite
from typing import Any

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
LARGE_INTEGER_PLACEHOLDER = "(an integer too large to keep)"
MAX_INTEGER_DIGITS = 3000
"""Of an integer that is kept; Python reads no more than 4300."""


def sanitize_value(value: Any) -> Any:
    """The same value, storable everywhere: bad characters become U+FFFD, numbers that cannot be kept become text."""
    match value:
        case str():
            return UNSTORABLE.sub("\ufffd", value)
        case dict():
            return {sanitize_value(str(key)): sanitize_value(item) for key, item in value.items()}
        case list():
            return [sanitize_value(item) for item in value]
        case int() if not -(2**63) <= value < 2**63:
            return str(value) if value.bit_length() < 10_000 else LARGE_INTEGER_PLACEHOLDER
        case float() if not isfinite(value):
            return str(value)
    return value


INVISIBLE_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)


def escape_invisible(value: Any) -> Any:
    """The same value with control and invisible characters escaped, as in `\\x1b`; newlines and tabs stay."""
    match value:
        case str():
            return INVISIBLE_CHARACTERS.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
        case dict():
            return {escape_invisible(key): escape_invisible(item) for key, item in value.items()}
        case list():
            return [escape_invisible(item) for item in value]
    return value


def parse_integer(digits: str) -> Any:
    """For `json.loads(parse_int=...)`: what Python itself would refuse to read becomes text."""
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else LARGE_INTEGER_PLACEHOLDER


def is_deeper_than(depth: int, value: Any) -> bool:
    """Whether JSON has more objects and lists in each other."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(is_deeper_than(depth - 1, item) for item in inner)
