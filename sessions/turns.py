"""Whose turn it is: the runs of one session one after the other, in the order they came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from graph.errors import SessionBusy


class Turns:
    """Holds memory only for sessions that are busy."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    def busy(self, session_id: str) -> bool:
        return session_id in self._locks

    @asynccontextmanager
    async def take(self, session_id: str, patience: float | None) -> AsyncIterator[None]:
        """Waits for the turn, `patience` seconds at most. Raises SessionBusy."""
        lock, users = self._locks.get(session_id, (asyncio.Lock(), 0))
        self._locks[session_id] = (lock, users + 1)
        try:
            await _acquire(lock, patience)
            try:
                yield
            finally:
                lock.release()
        finally:
            lock, users = self._locks.pop(session_id)
            if users > 1:
                self._locks[session_id] = (lock, users - 1)


async def _acquire(lock: asyncio.Lock, patience: float | None) -> None:
    try:
        async with asyncio.timeout(patience):
            await lock.acquire()
    except TimeoutError:
        raise SessionBusy("The session still works on an earlier message. Send this one again later.") from None
