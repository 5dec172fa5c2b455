"""The faults of a model call, with sentences for the user."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from graph.completion.finish_reasons import MAX_REASON_CHARS, FinishKind
from graph.errors import AgentRuntimeError, LLMInvalidAnswer, LLMUnavailable
from graph.sanitize import escape_invisible

MAX_RETRY_AFTER_SECONDS = 30.0
"""Longest `Retry-After` that a retry waits for; the user waits meanwhile. After a longer one the call fails, and the
error says when to try again. Chosen, not measured."""


class Fault(Exception):
    """A failed attempt: the error for the user, the cause for the log, and whether another attempt may help."""

    def __init__(
        self,
        error: AgentRuntimeError,
        cause: str,
        *,
        is_retryable: bool = True,
        wait: float = 0,
        is_down: bool | None = None,
        can_fall_back: bool | None = None,
    ) -> None:
        """Describe a failed attempt.

        `wait`: seconds before a retry may begin. `is_down`: the fault shows that the model is down. `can_fall_back`:
        another model may answer. Both default to `is_retryable`.
        """
        super().__init__(cause)
        self.error, self.cause, self.is_retryable, self.wait = error, cause, is_retryable, wait
        self.is_down = is_retryable if is_down is None else is_down
        self.can_fall_back = is_retryable if can_fall_back is None else can_fall_back


def make_unreadable_fault(cause: str) -> Fault:
    return Fault(LLMInvalidAnswer("The model service sent something that is no model's answer. Try again."), cause)


EMPTY_SENTENCES: dict[FinishKind, str] = {
    "length": "The model reached its output limit before it wrote an answer. Try again, or ask for less in one step.",
    "content_filter": "The content filter of the model's service blocked the answer. Put the request in other words.",
}
"""The sentences for an answer without text and calls that was cut off."""


def make_empty_fault(ending: FinishKind) -> Fault:
    """Return the fault of an answer without text and calls. A content filter would only block it again."""
    sentence = EMPTY_SENTENCES.get(ending, "The model gave an empty answer. Try again, or put it in other words.")
    return Fault(LLMInvalidAnswer(sentence), f"empty, {ending}", is_retryable=ending != "content_filter", is_down=False)


def make_failed_finish_fault(reason: str) -> Fault:
    """Return the fault of an answer whose `finish_reason` is an error. Its service answers, so it is not down."""
    cause = f"finish reason {escape_invisible(reason[:MAX_REASON_CHARS])}"
    return Fault(LLMUnavailable("The model's answer broke off. Try again."), cause, is_down=False)


def make_incomplete_fault(cause: str) -> Fault:
    return Fault(LLMUnavailable("The model's answer broke off. Try again."), cause)


def make_unavailable_fault(cause: str) -> Fault:
    return Fault(LLMUnavailable("The model service reported a fault. Try again in a moment."), cause)


def fault_from_status(status: int, retry_after: str = "") -> Fault:
    """Return the fault of an HTTP status. `retry_after` is the value of that header."""
    cause = f"status {status}"
    if status in (408, 429) or status >= 500:
        wait = _parse_retry_after(retry_after.strip())
        when = f"in {wait:.0f} seconds" if wait > MAX_RETRY_AFTER_SECONDS else "in a moment"
        sentence = f"The model service is overloaded or down (status {status}). Try again {when}."
        return Fault(
            LLMUnavailable(sentence),
            cause,
            is_retryable=wait <= MAX_RETRY_AFTER_SECONDS,
            wait=wait,
            is_down=True,
            can_fall_back=True,
        )
    sentence = f"The model service refused the request (status {status}). Check its address, key and model name."
    return Fault(LLMUnavailable(sentence), cause, is_retryable=False)


def _parse_retry_after(retry_after: str) -> float:
    """Return the seconds of a `Retry-After` header, which holds seconds or an HTTP date; 0 if it is neither."""
    if re.fullmatch(r"\d+(\.\d+)?", retry_after):
        return float(retry_after)
    try:
        when = parsedate_to_datetime(retry_after).astimezone(UTC)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def fault_from_error_object(error: Any) -> Fault:
    """Return the fault of an `error` object in an answer of status 200.

    The text of the object may hold anything, so it is not repeated.
    """
    code = str(error.get("code") or error.get("status") or "") if isinstance(error, dict) else ""
    if re.fullmatch(r"[45]\d\d", code):
        return fault_from_status(int(code))
    return make_unavailable_fault("an error object")


def fault_from_transport(error: Exception) -> Fault:
    """Return the fault of a connection that failed, was silent for too long or broke."""
    cause = type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Fault(LLMUnavailable("The model service could not be reached. Try again in a moment."), cause)
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        sentence = "The model did not answer in time. Try again, or ask for less in one step."
        return Fault(LLMUnavailable(sentence), cause, is_retryable=not isinstance(error, TimeoutError), is_down=True)
    return make_incomplete_fault(cause)
