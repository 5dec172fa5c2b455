"""The background tasks of a replica, and its shutdown."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

log = logging.getLogger("agent_runtime.runs")
SHUTDOWN_GRACE_SECONDS = 5
"""Time for stopped runs to reach a model call, where they can be handed over, beyond `shutdown_seconds`."""
T = TypeVar("T")


class Lifecycle:
    def __init__(self, shutdown_seconds: float) -> None:
        self._shutdown_seconds = shutdown_seconds
        self._tasks: set[asyncio.Task[Any]] = set()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def is_closing(self) -> bool:
        """Whether nothing new may begin."""
        return self._deadline is not None

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run `work` in a task that is cancelled at the end of the process."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def begin_shutdown(self, stop_runs: Callable[[], None]) -> bool:
        """Call `stop_runs` in `shutdown_seconds`; return whether this was the first request to shut down."""
        if self._deadline is not None:
            return False
        self._deadline = asyncio.get_running_loop().call_later(self._shutdown_seconds, stop_runs)
        return True

    async def close(self, finished: Iterable[asyncio.Event]) -> None:
        """Wait for the runs whose `finished` events are given, until the deadline and the grace; cancel all tasks."""
        assert self._deadline
        left = max(0, self._deadline.when() - asyncio.get_running_loop().time()) + SHUTDOWN_GRACE_SECONDS
        if waiting := [asyncio.create_task(event.wait()) for event in finished]:
            await asyncio.wait(waiting, timeout=left)
        for task in [*self._tasks, *waiting]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def run_periodically(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Call `work` every so many seconds, for ever; a failure is logged and the next round tries again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception as error:
            log.error("%s failed, %s; retrying in %g s", work.__name__, type(error).__name__, seconds)
