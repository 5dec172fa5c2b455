"""Deleting sessions: when a user wants it, or when nobody has touched them for long."""

import logging
from typing import Any

from sqlalchemy import Connection, RowMapping

from graph.db.fencing import Fence
from graph.execution.closing import delete_thread
from graph.execution.outcome import Graph
from graph.timestamps import now
from sessions.lookup import Finding
from sessions.runs.service import Runs
from sessions.store import leases
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.database import Database

log = logging.getLogger("agent_runtime.janitor")


class Removal:
    def __init__(self, database: Database, graph: Graph, runs: Runs, finding: Finding) -> None:
        self._database = database
        self._graph = graph
        self._runs = runs
        self._finding = finding

    async def delete(self, session_id: str, *, hard: bool) -> dict[str, Any]:
        """Soft: hidden, its rows stay until the id is used again. Hard: nothing is left of it.

        What goes on is stopped first, and what waits is withdrawn: who deletes a session does not want its answer.
        Raises SessionNotFound, SessionBusy.
        """
        await self._finding.row(session_id, deleted_too=hard)
        await self._database.transact(lambda connection: run_rows.withdraw_all(connection, session_id))
        await self._runs.stop(session_id)
        async with self._finding.held(session_id, deleted_too=hard) as (_, lease):
            await self.hide(lease)
            if hard:
                await self.erase(lease)
        return {"session_id": session_id, "deleted": True, "hard": hard}

    async def hide(self, lease: Fence) -> None:
        def hidden(connection: Connection) -> None:
            leases.checked(connection, lease)
            run_rows.withdraw_all(connection, lease.session_id)
            session_rows.change(connection, lease.session_id, deleted_at=now())

        await self._database.transact(hidden)

    async def erase(self, lease: Fence) -> None:
        """The thread first: a session that is half erased is hidden, and can be deleted again."""

        def erased(connection: Connection) -> None:
            if leases.locked(connection, lease.session_id):
                leases.checked(connection, lease)
                session_rows.erase(connection, lease.session_id)

        await delete_thread(self._graph, lease.session_id)
        await self._database.transact(erased)

    async def expire(self, hours: float) -> None:
        """Erases what had no activity for longer, deleted or not; nothing that waits for somebody or something."""

        async def expire(row: RowMapping, lease: Fence) -> None:
            if session_rows.is_forgotten(row, hours * 3600):
                await self.hide(lease)
                await self.erase(lease)
                log.info("session %s had no activity for %g hours; it is erased", lease.session_id, hours)

        forgotten = await self._database.transact(lambda c: session_rows.forgotten(c, hours * 3600))
        await self._finding.each_held(forgotten, expire, deleted_too=True)
