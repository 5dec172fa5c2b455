"""Deleting sessions: when a user wants it, or when nobody has touched them for long."""

import logging
from typing import Any

from sqlalchemy import Connection, RowMapping

from graph.db.fencing import FencingToken
from graph.execution.closing import delete_thread
from graph.execution.outcome import Graph
from graph.timestamps import utc_timestamp
from sessions.lookup import SessionLookup
from sessions.runs.service import Runs
from sessions.store import leases
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.janitor")


class Deletion:
    def __init__(self, database: Database, graph: Graph, runs: Runs, lookup: SessionLookup) -> None:
        self._database = database
        self._graph = graph
        self._runs = runs
        self._lookup = lookup

    async def delete(self, session_id: str, *, hard: bool) -> dict[str, Any]:
        """Soft: hidden, its rows stay until the id is used again. Hard: nothing is left of it.

        What goes on is stopped first, and what waits is withdrawn: who deletes a session does not want its answer.
        Raises SessionNotFound, SessionBusy.
        """
        await self._lookup.find(session_id, deleted_too=hard)
        await self._database.transact(lambda connection: run_rows.withdraw_all(connection, session_id))
        await self._runs.stop(session_id)
        async with self._lookup.find_and_lease(session_id, deleted_too=hard) as (_, lease):
            await self.hide(lease)
            if hard:
                await self.erase(lease)
        return {"session_id": session_id, "deleted": True, "hard": hard}

    async def hide(self, lease: FencingToken) -> None:
        def hide_rows(connection: Connection) -> None:
            leases.require_lease(connection, lease)
            run_rows.withdraw_all(connection, lease.session_id)
            session_rows.update_session(connection, lease.session_id, deleted_at=utc_timestamp())

        await self._database.transact(hide_rows)

    async def erase(self, lease: FencingToken) -> None:
        """The thread first: a session that is half erased is hidden, and can be deleted again."""

        def erase_rows(connection: Connection) -> None:
            if leases.lock_row(connection, lease.session_id):
                leases.require_lease(connection, lease)
                session_rows.erase_session(connection, lease.session_id)

        await delete_thread(self._graph, lease.session_id)
        await self._database.transact(erase_rows)

    async def expire(self, hours: float) -> None:
        """Erases what had no activity for longer, deleted or not; nothing that waits for somebody or something."""

        async def erase_expired(row: RowMapping, lease: FencingToken) -> None:
            if session_rows.is_expired(row, hours * 3600):
                await self.hide(lease)
                await self.erase(lease)
                log.info("session %s had no activity for %g hours; it is erased", lease.session_id, hours)

        forgotten = await self._database.transact(lambda c: session_rows.find_expired(c, hours * 3600))
        await self._lookup.lease_each(forgotten, erase_expired, deleted_too=True)
