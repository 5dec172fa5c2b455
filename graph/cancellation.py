"""Ending a run from outside. It strikes while a model is at work and nowhere else: a graph that is cancelled while it
writes its checkpoint leaves half of it behind."""

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


class CancelToken:
    def __init__(self) -> None:
        self.error: Exception | None = None
        self._call: asyncio.Future[Any] | None = None

    def request(self, error: Exception) -> None:
        """The model call at work, or else the next one, is dropped and raises `error`; the first wish counts."""
        self.error = self.error or error
        if self._call:
            self._call.cancel()

    async def guard(self, call: Coroutine[Any, Any, T]) -> T:
        if self.error:
            call.close()
            raise self.error
        self._call = work = asyncio.ensure_future(call)
        try:
            return await work
        except asyncio.CancelledError:
            if self.error and work.cancelled() and not _is_task_cancelling():
                raise self.error from None
            raise
        finally:
            self._call = None


def _is_task_cancelling() -> bool:
    task = asyncio.current_task()
    return bool(task and task.cancelling())


CANCEL_TOKEN: ContextVar[CancelToken | None] = ContextVar("CANCEL_TOKEN", default=None)
"""That of the run at work; none in Studio, which has its own way to end one."""


async def await_cancellable(call: Coroutine[Any, Any, T]) -> T:
    """What the call returns. Raises what was wanted of the run's `Stop`."""
    stop = CANCEL_TOKEN.get()
    return await (stop.guard(call) if stop else call)
