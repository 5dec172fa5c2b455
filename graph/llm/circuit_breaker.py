"""Leaving a model alone that is down: after so many failures in a row nothing is asked of it for a while."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graph.errors import LLMUnavailable
from graph.llm.faults import Fault

log = logging.getLogger("agent_runtime.llm")


class Breaker:
    """Of one model, shared by all who ask it. When its time is over, one attempt finds out whether it is back:
    with its first word the others are let in again.
    """

    def __init__(self, model: str, failures: int, seconds: float) -> None:
        """`failures`: in a row; 0: it never opens."""
        self._model, self._most, self._seconds = model, failures, seconds
        self._failures = 0
        self._until = 0.0
        self._probe: object = None
        """The attempt that finds out, if there is one."""

    @contextmanager
    def attempt(self) -> Iterator[Callable[[], None]]:
        """What it yields is to be called at the first word.

        Raises Fault at once while the model is left alone. An attempt that is cancelled tells nothing.
        """
        attempt = object()
        self._pass(attempt)
        try:
            yield self._worked if self._probe is attempt else lambda: None
        except Fault as fault:
            self._failed() if fault.down else self._worked()
            raise
        else:
            self._worked()
        finally:
            if self._probe is attempt:
                self._probe = None

    @property
    def _is_open(self) -> bool:
        return bool(self._most) and self._failures >= self._most

    def _pass(self, attempt: object) -> None:
        left = self._until - time.monotonic()
        if self._is_open and (self._probe or left > 0):
            when = f"in {left:.0f} seconds" if left >= 1 else "in a moment"
            sentence = f"The model service is down. It is asked again {when}."
            raise Fault(LLMUnavailable(sentence), "left alone", retry=False, elsewhere=True)
        self._probe = attempt if self._is_open else None

    def _failed(self) -> None:
        self._failures += 1
        if self._is_open:
            self._until = time.monotonic() + self._seconds
            log.error("model %s failed %d times; left alone for %g s", self._model, self._failures, self._seconds)

    def _worked(self) -> None:
        if self._is_open:
            log.warning("model %s answers again", self._model)
        self._failures = 0
