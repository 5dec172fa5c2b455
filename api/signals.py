"""What the process is told from outside."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


def on_hangup(reload: Callable[[], None]) -> None:
    """Not where there is no such signal, nor outside of the main thread."""
    with suppress(AttributeError, NotImplementedError, RuntimeError, ValueError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


@contextmanager
def on_exit(begin_shutdown: Callable[[], None]) -> Iterator[None]:
    """Told when the signal comes: the server ends the app only when the streams that are open have ended."""
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
