"""Sessions by the id that a client named."""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import RowMapping

from graph import wire
from graph.db.fencing import Fence
from graph.errors import SessionBusy
from graph.sanitize import clean
from sessions.runs.replica import Replica
from sessions.store import sessions as session_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.janitor")


class SessionNotFound(Exception):
    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session {session_id} not found")


def known(session_id: str) -> str:
    """Raises SessionNotFound for what no database should be asked for."""
    if not re.fullmatch(wire.ID, session_id):
        raise SessionNotFound(clean(session_id)[:128])
    return session_id


class Finding:
    """Every method raises SessionNotFound."""

    def __init__(self, database: Database, replica: Replica) -> None:
        self._database = database
        self._replica = replica

    async def row(self, session_id: str, *, deleted_too: bool = False) -> RowMapping:
        find = session_rows.row if deleted_too else session_rows.session
        row = await self._database.transact(lambda connection: find(connection, known(session_id)))
        if row is None:
            raise SessionNotFound(session_id)
        return row

    @asynccontextmanager
    async def held(self, session_id: str, *, deleted_too: bool = False) -> AsyncIterator[tuple[RowMapping, Fence]]:
        """The session's row, and its lease while the block runs. Raises SessionBusy."""
        async with AsyncExitStack() as stack:
            try:
                lease = await stack.enter_async_context(self._replica.hold(known(session_id)))
            except KeyError:
                raise SessionNotFound(session_id) from None
            yield await self.row(session_id, deleted_too=deleted_too), lease

    async def each_held(
        self, session_ids: Iterable[str], work: Callable[[RowMapping, Fence], Awaitable[None]], *, deleted_too: bool
    ) -> None:
        """One after the other; a session that is busy, gone or broken does not stop the rest."""
        for session_id in session_ids:
            try:
                async with self.held(session_id, deleted_too=deleted_too) as (row, lease):
                    await work(row, lease)
            except (SessionBusy, SessionNotFound):
                continue
            except Exception as error:
                log.error("session %s could not be looked after, %s", session_id, type(error).__name__)
