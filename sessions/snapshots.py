"""A session as of one moment: rows of one transaction, and the thread at the checkpoint that its row names."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping

from graph.execution import threads
from graph.execution.outcome import Graph
from prompts import ORCHESTRATOR
from sessions.lookup import SessionNotFound, known
from sessions.store import leases
from sessions.store.database import Database


class Moment(NamedTuple):
    row: RowMapping
    rows: Any
    """What else was read in the transaction."""
    values: Any
    """The state of the thread."""


class Moments:
    def __init__(self, database: Database, graph: Graph) -> None:
        self._database = database
        self._graph = graph

    async def of(self, session_id: str, more: Callable[[Connection, RowMapping], Any]) -> Moment:
        """Raises SessionNotFound.

        A row names no checkpoint if its thread is very large, or older than such names: then it is the latest one.
        """
        gone = None
        while True:
            row, rows = await self._rows(session_id, more)
            if _never_rested(row):
                return Moment(row, rows, {})
            head = None if row["head"] == gone else row["head"]
            if snapshot := await threads.read(self._graph, session_id, head):
                return Moment(row, rows, snapshot.values)
            gone = head

    async def _rows(self, session_id: str, more: Callable[[Connection, RowMapping], Any]) -> tuple[RowMapping, Any]:
        """The row is locked, as all lock it who change a session: Postgres shows each statement what came before it."""

        def read(connection: Connection) -> tuple[RowMapping, Any]:
            row = leases.locked(connection, known(session_id))
            if row is None or row["deleted_at"]:
                raise SessionNotFound(session_id)
            return row, more(connection, row)

        return await self._database.transact(read)


def _never_rested(row: RowMapping) -> bool:
    """What its thread holds is of a first run that was cut off."""
    return row["head"] is None and not row["message_count"] and row["agent"] == ORCHESTRATOR
