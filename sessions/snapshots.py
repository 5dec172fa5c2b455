"""A session as of one moment: rows of one transaction, and the thread at the checkpoint that its row names."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping

from graph.execution import threads
from graph.execution.outcome import Graph
from prompts import ORCHESTRATOR
from sessions.lookup import SessionNotFound, validate_id
from sessions.store import leases
from sessions.store.database import Database


class SessionSnapshot(NamedTuple):
    row: RowMapping
    rows: Any
    """What else was read in the transaction."""
    values: Any
    """The state of the thread."""


class Snapshots:
    def __init__(self, database: Database, graph: Graph) -> None:
        self._database = database
        self._graph = graph

    async def read_snapshot(
        self, session_id: str, read_more: Callable[[Connection, RowMapping], Any]
    ) -> SessionSnapshot:
        """Raises SessionNotFound.

        A row names no checkpoint if its thread is very large, or older than such names: then it is the latest one.
        """
        gone = None
        while True:
            row, rows = await self._read_rows(session_id, read_more)
            if _has_no_outcome(row):
                return SessionSnapshot(row, rows, {})
            head = None if row["checkpoint_id"] == gone else row["checkpoint_id"]
            if snapshot := await threads.read_thread(self._graph, session_id, head):
                return SessionSnapshot(row, rows, snapshot.values)
            gone = head

    async def _read_rows(
        self, session_id: str, read_more: Callable[[Connection, RowMapping], Any]
    ) -> tuple[RowMapping, Any]:
        """The row is locked, as all lock it who change a session: Postgres shows each statement what came before it."""

        def read_locked(connection: Connection) -> tuple[RowMapping, Any]:
            row = leases.lock_row(connection, validate_id(session_id))
            if row is None or row["deleted_at"]:
                raise SessionNotFound(session_id)
            return row, read_more(connection, row)

        return await self._database.transact(read_locked)


def _has_no_outcome(row: RowMapping) -> bool:
    """What its thread holds is of a first run that was cut off."""
    return row["checkpoint_id"] is None and not row["message_count"] and row["agent"] == ORCHESTRATOR
