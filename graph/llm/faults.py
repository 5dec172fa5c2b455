"""The faults of a model call, with sentences for the user."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from graph.completion.finish_reasons import MAX_REASON_CHARS, FinishKind
from graph.errors import AgentRuntimeError, ContextOverflow, LLMInvalidAnswer, LLMUnavailable
from graph.llm.call_evidence import CallEvidence
from graph.llm.overflow import Overflow, find_overflow
from graph.llm.refusal_kinds import RefusalKind, judge_refusal
from graph.llm.refusals import Refusal
from graph.sanitize import escape_invisible

MAX_RETRY_AFTER_SECONDS = 30.0
"""Longest `Retry-After` that a retry waits for; the user waits meanwhile. After a longer one the call fails, and the
error says when to try again. Chosen, not measured."""


_DELAY = re.compile(
    r"\b(?:retry|try again) (?:in|after) (?:(\d{1,6})m)?(\d{1,6}(?:\.\d{1,6})?)\s*(ms|s)", re.IGNORECASE
)
_DOWN_SENTENCE = "The model service is overloaded or down"
_SENTENCES = {
    RefusalKind.ACCOUNT: "The account at the model service has no credit or quota left{status}. Check its plan.",
    RefusalKind.KEY: "The model service refused the key{status}. Check the key, and whether it may use this model.",
    RefusalKind.MODEL: "The model service does not know the model{status}. Check the model's name and the address.",
    RefusalKind.TOOLS: "The model cannot call tools{status}. Choose a model that can.",
    RefusalKind.STREAMING: (
        "The model service does not stream this model{status}. Set AGENT_RUNTIME__LLM_STREAMING to false."
    ),
    RefusalKind.CONTENT: "The content filter of the model service refused the request{status}. Put it in other words.",
    RefusalKind.REQUEST: "The model service refused the request{status}. The log of this service has its reason.",
    RefusalKind.OTHER: "The model service refused the request{status}. Check its address, key and model name.",
}
"""The sentence for a refusal that another attempt does not mend."""
_FALLBACK_KINDS = frozenset({RefusalKind.TOO_LARGE, RefusalKind.ACCOUNT, RefusalKind.MODEL, RefusalKind.TOOLS})
"""What another model may answer: it may have a larger window, another account, or tools."""


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
        refusal: Refusal | None = None,
    ) -> None:
        """Describe a failed attempt.

        `wait`: seconds before a retry may begin. `is_down`: the fault shows that the model is down. `can_fall_back`:
        another model may answer. Both default to `is_retryable`. `refusal`: the words of the service, for the log.
        """
        super().__init__(cause)
        self.error, self.cause, self.is_retryable, self.wait = error, cause, is_retryable, wait
        self.is_down = is_retryable if is_down is None else is_down
        self.can_fall_back = is_retryable if can_fall_back is None else can_fall_back
        self.refusal = refusal


def make_unreadable_fault(cause: str) -> Fault:
    return Fault(LLMInvalidAnswer("The model service sent something that is no model's answer. Try again."), cause)


EMPTY_SENTENCES: dict[FinishKind, str] = {
    "length": "The model reached its output limit before it wrote an answer. Try again, or ask for less in one step.",
    "content_filter": "The content filter of the model's service blocked the answer. Put the request in other words.",
}
"""The sentences for an answer without text and calls that was cut off."""


class EmptyAnswer(Fault):
    """The fault of an answer without text and calls."""

    evidence = CallEvidence.NONE


def make_empty_fault(ending: FinishKind, evidence: CallEvidence) -> EmptyAnswer:
    """Return the fault of an answer without text and calls. A content filter would only block it again."""
    sentence = EMPTY_SENTENCES.get(ending, "The model gave an empty answer. Try again, or put it in other words.")
    is_retryable = ending != "content_filter"
    fault = EmptyAnswer(LLMInvalidAnswer(sentence), f"empty, {ending}", is_retryable=is_retryable, is_down=False)
    fault.evidence = evidence
    return fault


def make_failed_finish_fault(reason: str) -> Fault:
    """Return the fault of an answer whose `finish_reason` is an error. Its service answers, so it is not down."""
    cause = f"finish reason {escape_invisible(reason[:MAX_REASON_CHARS])}"
    return Fault(LLMUnavailable("The model's answer broke off. Try again."), cause, is_down=False)


def make_incomplete_fault(cause: str) -> Fault:
    return Fault(LLMUnavailable("The model's answer broke off. Try again."), cause)


def make_unavailable_fault(cause: str, refusal: Refusal | None = None) -> Fault:
    return Fault(LLMUnavailable("The model service reported a fault. Try again in a moment."), cause, refusal=refusal)


def make_overflow_error(overflow: Overflow, status: str = "") -> ContextOverflow:
    """Return the error of a request that is too large. The user sees it if a smaller request is too large as well."""
    window = f"the model's window of {overflow.limit} tokens" if overflow.limit else "the model's window"
    sentence = f"The request is too large for the model{status}. Set AGENT_RUNTIME__CONTEXT_TOKENS below {window}."
    return ContextOverflow(sentence, overflow.limit, overflow.counted)


def fault_from_refusal(refusal: Refusal, retry_after: str = "") -> Fault:
    """Return the fault of a refusal. `retry_after` is the value of that header.

    The text of the service may hold anything, so the sentence for the user does not repeat it.
    """
    kind = judge_refusal(refusal)
    status = f" (status {refusal.status})" if refusal.status else ""
    if kind in (RefusalKind.RATE_LIMIT, RefusalKind.DOWN):
        wait = _parse_retry_after(retry_after.strip()) or find_delay(refusal.message)
        when = f"in {wait:.0f} seconds" if wait > MAX_RETRY_AFTER_SECONDS else "in a moment"
        begin = "The rate limit of the model service is reached" if kind is RefusalKind.RATE_LIMIT else _DOWN_SENTENCE
        return Fault(
            LLMUnavailable(f"{begin}{status}. Try again {when}."),
            "refused",
            is_retryable=wait <= MAX_RETRY_AFTER_SECONDS,
            wait=wait,
            is_down=kind is RefusalKind.DOWN,
            can_fall_back=True,
            refusal=refusal,
        )
    if kind is RefusalKind.UNKNOWN:
        return make_unavailable_fault("an error object", refusal)
    if kind is RefusalKind.TOO_LARGE:
        error: LLMUnavailable = make_overflow_error(find_overflow(refusal) or Overflow(), status)
    else:
        error = LLMUnavailable(_SENTENCES[kind].format(status=status))
    return Fault(error, "refused", is_retryable=False, can_fall_back=kind in _FALLBACK_KINDS, refusal=refusal)


def _parse_retry_after(retry_after: str) -> float:
    """Return the seconds of a `Retry-After` header, which holds seconds or an HTTP date; 0 if it is neither."""
    if re.fullmatch(r"\d+(\.\d+)?", retry_after):
        return float(retry_after)
    try:
        when = parsedate_to_datetime(retry_after).astimezone(UTC)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def find_delay(message: str) -> float:
    """Return the seconds that a message asks to wait, as in `try again in 1m2.5s`; 0 if it says nothing."""
    match = _DELAY.search(message)
    if not match:
        return 0.0
    minutes, number, unit = match.groups()
    return float(minutes or 0) * 60 + float(number) / (1000 if unit == "ms" else 1)


def fault_from_transport(error: Exception) -> Fault:
    """Return the fault of a connection that failed, was silent for too long or broke."""
    cause = type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Fault(LLMUnavailable("The model service could not be reached. Try again in a moment."), cause)
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        sentence = "The model did not answer in time. Try again, or ask for less in one step."
        return Fault(LLMUnavailable(sentence), cause, is_retryable=not isinstance(error, TimeoutError), is_down=True)
    return make_incomplete_fault(cause)
