"""Cancel a run from outside, at a model call only.

A graph that is cancelled while it writes a checkpoint would leave half of the checkpoint behind.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class CancelToken:
    """The cancellation of one run."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._call: asyncio.Future[Any] | None = None

    def request(self, error: Exception) -> None:
        """Drop the current model call, or the next one, and raise `error` there. Only the first request counts."""
        self.error = self.error or error
        if self._call:
            self._call.cancel()

    async def guard(self, call: Coroutine[Any, Any, T]) -> T:
        """Return the result of the model call. Raises the error of `request` as soon as that is called."""
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
