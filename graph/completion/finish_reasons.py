"""Read how an answer ended from its `finish_reason`. Services spell it in many ways; the only table is here."""

import re
from functools import lru_cache
from typing import Literal

from graph.marks import TruncationReason

FinishKind = Literal["complete", "length", "content_filter", "error"]
"""complete: the model was done. length: it reached a limit. content_filter: its service stopped it for what it wrote.
error: the service failed, or it could not read what the model wrote."""

_WORDS: tuple[tuple[FinishKind, str], ...] = (
    ("error", "malformed|unexpected|missing|ratelimit|quota"),
    (
        "content_filter",
        "filter|safe|recitation|block|prohibit|spii|sensitive|moderat|toxic|guardrail|refus|violat|policy|flag"
        "|censor|copyright|inappropriate|language$|armor|jailbreak|profan|harm(?!ony)",
    ),
    ("length", "length|limit|maxtoken|maxoutput|maxnew|maxmodel|maxcompletion|window|exceed|truncat|incomplet|toolong"),
    ("length", "cutoff|partial|overflow|budget|maxtime|maxthink"),
    (
        "error",
        "error|fail|abort|cancel|network|time|unavailable|insufficient|connect|crash|interrupt|exception|kill|other",
    ),
)
"""Parts of the words for an end before the end, without signs and capitals. The first row that fits decides."""
_TABLE = tuple((kind, re.compile(words)) for kind, words in _WORDS)
MAX_REASON_CHARS = 80
"""Characters of a reason that are read. Chosen, not measured: the longest known one has 46."""


@lru_cache(maxsize=256)
def classify_finish_reason(reason: str) -> FinishKind:
    """Return how an answer with this `finish_reason` ended. A missing or unknown reason is that of a complete one."""
    letters = re.sub(r"[^a-z]", "", reason[:MAX_REASON_CHARS].lower())
    return next((kind for kind, words in _TABLE if words.search(letters)), "complete")


def find_truncation(reason: str) -> TruncationReason | None:
    """Return why an answer with this `finish_reason` was cut off; None if it was not."""
    kind = classify_finish_reason(reason)
    return kind if kind in ("length", "content_filter") else None
