"""Sessions by the id that a client named."""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import RowMapping

from graph import wire
from graph.db.fencing import FencingToken
from graph.errors import SessionBusy
from graph.sanitize import sanitize_value
from sessions.runs.replica import Replica
from sessions.store import sessions as session_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.janitor")


class SessionNotFound(Exception):
    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session {session_id} not found")


def validate_id(session_id: str) -> str:
    """Raises SessionNotFound for what no database should be asked for."""
    if not re.fullmatch(wire.ID_PATTERN, session_id):
        raise SessionNotFound(sanitize_value(session_id)[:128])
    return session_id


class SessionLookup:
    """Every method raises SessionNotFound."""

    def __init__(self, database: Database, replica: Replica) -> None:
        self._database = database
        self._replica = replica

    async def find(self, session_id: str, *, deleted_too: bool = False) -> RowMapping:
        find = session_rows.find_including_deleted if deleted_too else session_rows.find_session
        row = await self._database.transact(lambda connection: find(connection, validate_id(session_id)))
        if row is None:
            raise SessionNotFound(session_id)
        return row

    @asynccontextmanager
    async def find_and_lease(
        self, session_id: str, *, deleted_too: bool = False
    ) -> AsyncIterator[tuple[RowMapping, FencingToken]]:
        """The session's row, and its lease while the block runs. Raises SessionBusy."""
        async with AsyncExitStack() as stack:
            try:
                lease = await stack.enter_async_context(self._replica.lease_session(validate_id(session_id)))
            except KeyError:
                raise SessionNotFound(session_id) from None
            yield await self.find(session_id, deleted_too=deleted_too), lease

    async def lease_each(
        self,
        session_ids: Iterable[str],
        work: Callable[[RowMapping, FencingToken], Awaitable[None]],
        *,
        deleted_too: bool,
    ) -> None:
        """One after the other; a session that is busy, gone or broken does not stop the rest."""
        for session_id in session_ids:
            try:
                async with self.find_and_lease(session_id, deleted_too=deleted_too) as (row, lease):
                    await work(row, lease)
            except (SessionBusy, SessionNotFound):
                continue
            except Exception as error:
                log.error("session %s could not be looked after, %s", session_id, type(error).__name__)
