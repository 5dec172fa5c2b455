"""What JSON allows and storage does not: NUL, lone surrogates, integers over 64 bits; and infinity."""

import re
from math import isfinite
from typing import Any

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
TOO_LARGE = "(an integer too large to keep)"
DIGITS = 3000
"""Of an integer that is kept; Python reads no more than 4300."""


def clean(value: Any) -> Any:
    """The same value, storable everywhere: bad characters become U+FFFD, numbers that cannot be kept become text."""
    match value:
        case str():
            return UNSTORABLE.sub("\ufffd", value)
        case dict():
            return {clean(str(key)): clean(item) for key, item in value.items()}
        case list():
            return [clean(item) for item in value]
        case int() if not -(2**63) <= value < 2**63:
            return str(value) if value.bit_length() < 10_000 else TOO_LARGE
        case float() if not isfinite(value):
            return str(value)
    return value


UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)


def visible(value: Any) -> Any:
    """The same value with control and invisible characters escaped, as in `\\x1b`; newlines and tabs stay."""
    match value:
        case str():
            return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
        case dict():
            return {visible(key): visible(item) for key, item in value.items()}
        case list():
            return [visible(item) for item in value]
    return value


def integer(digits: str) -> Any:
    """For `json.loads(parse_int=...)`: what Python itself would refuse to read becomes text."""
    return int(digits) if len(digits) <= DIGITS else TOO_LARGE


def deeper_than(depth: int, value: Any) -> bool:
    """Whether JSON has more objects and lists in each other."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(deeper_than(depth - 1, item) for item in inner)
