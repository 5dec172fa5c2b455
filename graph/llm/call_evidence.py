"""Judge what an answer shows about its service: whether its streams carry tool calls."""

from enum import Enum, auto
from typing import Final

from graph.completion.finish_reasons import classify_finish_reason

CALL_REASONS = {"tool_calls", "tool_use", "function_call"}
"""The finish reasons of an answer that has tool calls, as services name them."""
CALL_EVIDENCE: Final = "call_evidence"
"""Key in the metadata of an answer's last chunk, between `decoder` and `tool_streaming` only."""


class CallEvidence(Enum):
    PROVEN = auto()
    """The stream has calls, or the usage that a proxy of text only does not send."""
    NONE = auto()
    """The answer is no stream, or it was cut off, or it ends without a reason."""
    DOUBTFUL = auto()
    """The stream is said to be complete, and has a plain text or nothing. Calls may have been dropped from it."""
    LOST = auto()
    """The finish reason names calls, but there are none."""


def judge_answer(reason: str, *, is_stream: bool, has_calls: bool, has_usage: bool) -> CallEvidence:
    if not is_stream:
        return CallEvidence.NONE
    if has_calls:
        return CallEvidence.PROVEN
    if reason.casefold() in CALL_REASONS:
        return CallEvidence.LOST
    if has_usage:
        return CallEvidence.PROVEN
    return CallEvidence.DOUBTFUL if reason and classify_finish_reason(reason) == "complete" else CallEvidence.NONE
