"""Stop sending requests to a model that is down, for a while after some failures in a row."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graph.errors import LLMUnavailable
from graph.llm.faults import Fault

log = logging.getLogger("agent_runtime.llm")


class CircuitBreaker:
    """The breaker of one model, shared by all its requests.

    When its time is over, one attempt probes the model. The first word of its answer closes the breaker.
    """

    def __init__(self, model: str, failures: int, seconds: float) -> None:
        """Open after so many `failures` in a row, for so many `seconds`; with 0 failures never."""
        self._model, self._max_failures, self._open_seconds = model, failures, seconds
        self._failures = 0
        self._open_until = 0.0
        self._probe: object = None
        """The attempt that probes the model, if there is one."""

    @contextmanager
    def guard_attempt(self) -> Iterator[Callable[[], None]]:
        """Record the end of the attempt in the block. Yield a function to call at the first word of its answer.

        Raises Fault at once while the breaker is open. A cancelled attempt is neither a success nor a failure.
        """
        attempt = object()
        self._admit_attempt(attempt)
        try:
            yield self._record_success if self._probe is attempt else lambda: None
        except Fault as fault:
            self._record_failure() if fault.is_down else self._record_success()
            raise
        else:
            self._record_success()
        finally:
            if self._probe is attempt:
                self._probe = None

    @property
    def _is_open(self) -> bool:
        return bool(self._max_failures) and self._failures >= self._max_failures

    def _admit_attempt(self, attempt: object) -> None:
        """Make the attempt the probe if the breaker's time is over. Raises Fault while the breaker is open."""
        left = self._open_until - time.monotonic()
        if self._is_open and (self._probe or left > 0):
            when = f"in {left:.0f} seconds" if left >= 1 else "in a moment"
            sentence = f"The model service is down. Try again {when}."
            raise Fault(LLMUnavailable(sentence), "breaker open", is_retryable=False, can_fall_back=True)
        self._probe = attempt if self._is_open else None

    def _record_failure(self) -> None:
        self._failures += 1
        if self._is_open:
            self._open_until = time.monotonic() + self._open_seconds
            log.error(
                "model %s failed %d times in a row; it gets no requests for %g s",
                self._model,
                self._failures,
                self._open_seconds,
            )

    def _record_success(self) -> None:
        if self._is_open:
            log.warning("model %s answers again", self._model)
        self._failures = 0
