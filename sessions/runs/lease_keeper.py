"""The leases that this replica has: acquired, renewed by a heartbeat, taken over from replicas that died."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection

from graph.db.fencing import FencingToken
from sessions.store import leases
from sessions.store import runs as run_rows
from sessions.store.database import Database

T = TypeVar("T")


class Renewal(NamedTuple):
    """The difference between the leases that the replica knew and those that the database has."""

    lost: list[FencingToken]
    """Another replica has taken the session over."""
    found: list[FencingToken]
    """Acquired by a transaction whose commit was not confirmed; nobody works on the session."""


class LeaseKeeper:
    def __init__(self, name: str, database: Database, lease_seconds: float) -> None:
        """`name` identifies this replica; no other replica ever had it."""
        self.name = name
        self._database = database
        self._lease_seconds = lease_seconds
        self._leases: dict[str, FencingToken] = {}
        self._acquisitions: Counter[str] = Counter()
        """By session id: the transactions under way that may acquire its lease."""

    def add(self, lease: FencingToken) -> None:
        self._leases[lease.session_id] = lease

    def discard(self, lease: FencingToken) -> None:
        """Forget a lease that was released or lost; a newer one of the same session stays."""
        if self._leases.get(lease.session_id) == lease:
            del self._leases[lease.session_id]

    async def track_acquisition(self, session_id: str, work: Callable[[Connection], T]) -> T:
        """Run a transaction that may acquire the session's lease: `renew` does not mistake it for a lost commit."""
        self._acquisitions[session_id] += 1
        try:
            return await self._database.transact(work)
        finally:
            self._acquisitions[session_id] -= 1
            if not self._acquisitions[session_id]:
                del self._acquisitions[session_id]

    async def acquire_if_idle(self, session_id: str) -> FencingToken | None:
        """Acquire the lease of a session that nobody works on. Raises KeyError if there is no such session."""
        lease = await self.track_acquisition(session_id, partial(self._acquire_if_idle, session_id))
        if lease:
            self.add(lease)
        return lease

    def _acquire_if_idle(self, session_id: str, connection: Connection) -> FencingToken | None:
        row = leases.lock_row(connection, session_id)
        if row is None:
            raise KeyError(session_id)
        if row["held"] or run_rows.first_unfinished(connection, session_id):
            return None
        return leases.acquire_lease(connection, session_id, self.name, self._lease_seconds)

    async def renew(self) -> Renewal:
        """Extend every lease of this replica in one statement."""
        before = set(self._leases.values())
        renewed = await self._database.transact(
            lambda connection: leases.renew_leases(connection, self.name, self._lease_seconds)
        )
        lost = [lease for lease in before - renewed if self._leases.get(lease.session_id) == lease]
        found = [lease for lease in renewed - before if self._is_unknown(lease.session_id)]
        return Renewal(lost, found)

    def _is_unknown(self, session_id: str) -> bool:
        return session_id not in self._leases and not self._acquisitions[session_id]

    async def take_over_orphaned(self) -> AsyncIterator[FencingToken]:
        """Acquire and yield the leases of sessions that have work to do and no replica."""
        for session_id in await self._database.transact(run_rows.list_orphaned_sessions):
            if lease := await self.track_acquisition(session_id, partial(self._acquire_orphaned, session_id)):
                yield lease

    def _acquire_orphaned(self, session_id: str, connection: Connection) -> FencingToken | None:
        row = leases.try_lock_row(connection, session_id)
        if row is None or row["held"] or not run_rows.first_unfinished(connection, session_id):
            return None
        return leases.acquire_lease(connection, session_id, self.name, self._lease_seconds)
