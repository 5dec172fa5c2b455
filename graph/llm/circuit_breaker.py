"""Leaving a model alone that is down: after so many failures in a row nothing is asked of it for a while."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graph.errors import LLMUnavailable
from graph.llm.faults import Fault

log = logging.getLogger("agent_runtime.llm")


class CircuitBreaker:
    """Of one model, shared by all who ask it. When its time is over, one attempt finds out whether it is back:
    with its first word the others are let in again.
    """

    def __init__(self, model: str, failures: int, seconds: float) -> None:
        """`failures`: in a row; 0: it never opens."""
        self._model, self._max_failures, self._open_seconds = model, failures, seconds
        self._failures = 0
        self._open_until = 0.0
        self._probe: object = None
        """The attempt that finds out, if there is one."""

    @contextmanager
    def guard_attempt(self) -> Iterator[Callable[[], None]]:
        """What it yields is to be called at the first word.

        Raises Fault at once while the model is left alone. An attempt that is cancelled tells nothing.
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
        left = self._open_until - time.monotonic()
        if self._is_open and (self._probe or left > 0):
            when = f"in {left:.0f} seconds" if left >= 1 else "in a moment"
            sentence = f"The model service is down. It is asked again {when}."
            raise Fault(LLMUnavailable(sentence), "left alone", is_retryable=False, can_fall_back=True)
        self._probe = attempt if self._is_open else None

    def _record_failure(self) -> None:
        self._failures += 1
        if self._is_open:
            self._open_until = time.monotonic() + self._open_seconds
            log.error("model %s failed %d times; left alone for %g s", self._model, self._failures, self._open_seconds)

    def _record_success(self) -> None:
        if self._is_open:
            log.warning("model %s answers again", self._model)
        self._failures = 0
