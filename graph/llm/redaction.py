"""Clean the text of a model service for the log: one line, short, no secrets, none of the conversation."""

import re
from collections.abc import Sequence

from graph.sanitize import escape_invisible

MAX_REASON_CHARS = 300
"""Characters of a provider's reason in the log: enough for its sentence. Chosen, not measured."""
MASK = "***"
MIN_SECRET_CHARS = 4
"""A shorter secret is no secret, and to mask it would spoil every word. Chosen, not measured."""

_INPUT = re.compile(r"""(["']?\binput(?:_value)?["']?\s*[=:]\s*).*""", re.DOTALL)
"""The rest of a validation error that repeats the request: it is the conversation of a user."""
_NAMED_SECRET = re.compile(
    r"""(\b(?:api[ _-]?key|token|secret|password|authorization|x-[a-z-]*(?:auth|key))\b["']?(?:\s+provided)?\s*"""
    r"""[:=]\s*["']?(?:bearer\s+)?|\bbearer\s+)[^\s"',;&]{4,}""",
    re.IGNORECASE,
)
"""A value after a word such as `API key provided:`."""
_URL_SECRET = re.compile(r"(?<=://)[^\s/@]+(?=@)|(?<=[?&]key=)[^\s&,]+")
_KEY_SHAPE = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|ghp|gho|nvapi|tgp|pplx|fw|csk|r8|AIza|ya29|eyJ)[-_.A-Za-z0-9*]{10,}"
    r"|\b(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{32,}\b"
)
"""The prefixes of well-known keys, and any long run of letters and digits."""


def clean_message(text: str, secrets: Sequence[str] = ()) -> str:
    """Return the text for a log line, without the `secrets` and without other texts that look like a key."""
    for secret in secrets:
        text = text.replace(secret, MASK) if len(secret) >= MIN_SECRET_CHARS else text
    text = text[: 4 * MAX_REASON_CHARS]  # the patterns need no more
    text = _INPUT.sub(rf"\1{MASK}", text)
    for pattern, mask in ((_URL_SECRET, MASK), (_KEY_SHAPE, MASK), (_NAMED_SECRET, rf"\1{MASK}")):
        text = pattern.sub(mask, text)
    line: str = escape_invisible(" ".join(text.split()))
    return line[:MAX_REASON_CHARS]
