"""What JSON allows and storage does not: NUL, lone surrogates, integers over 64 bits; and infinity."""

import re
from math import isfinite
from typing import Any

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


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
            return str(value) if value.bit_length() < 10_000 else "(an integer too large to keep)"
        case float() if not isfinite(value):
            return str(value)
    return value


def deeper_than(depth: int, value: Any) -> bool:
    """Whether JSON is nested deeper."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth == 0 or any(deeper_than(depth - 1, item) for item in inner)
