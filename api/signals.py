"""The signals of the operating system: reload at SIGHUP, shut down at SIGTERM and SIGINT."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


def on_hangup(reload: Callable[[], None]) -> None:
    """Call `reload` at each SIGHUP. Nothing is done on a system without it, or outside of the main thread."""
    with suppress(AttributeError, NotImplementedError, RuntimeError, ValueError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


@contextmanager
def on_exit(begin_shutdown: Callable[[], None]) -> Iterator[None]:
    """Call `begin_shutdown` as soon as SIGTERM or SIGINT comes, then the handlers that were there before.

    The server ends the app only when the open streams have ended: runs would get no time to finish before.
    """
    loop = asyncio.get_running_loop()
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def handle_signal(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin_shutdown)
        before[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        before = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in before:
        signal.signal(number, handle_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
