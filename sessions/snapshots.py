"""Read a session as of one moment: rows of one transaction, and the thread at the checkpoint that its row names."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from sqlalchemy import Connection, RowMapping

from graph.execution import threads
from graph.execution.outcome import EMPTY_STATE, state_of
from graph.state import State
from prompts import ORCHESTRATOR
from sessions.deps import Deps
from sessions.lookup import SessionNotFound, validate_id
from sessions.store import leases

RowsT = TypeVar("RowsT")


class SessionSnapshot(NamedTuple, Generic[RowsT]):
    row: RowMapping
    """The row of the session."""
    rows: RowsT
    """The result of `read_more`, from the same transaction."""
    state: State
    """The state of the thread; empty before the first outcome."""


async def read_snapshot(
    deps: Deps, session_id: str, read_more: Callable[[Connection, RowMapping], RowsT]
) -> SessionSnapshot[RowsT]:
    """Return the session, its thread and what `read_more` reads beside them. Raises SessionNotFound.

    If the named checkpoint was deleted meanwhile, both are read again. A row names no checkpoint if its thread is too
    large for the cache, or older than this column: then the latest checkpoint is read.
    """
    missing = None
    while True:
        row, rows = await _read_rows(deps, session_id, read_more)
        if _has_no_outcome(row):
            return SessionSnapshot(row, rows, EMPTY_STATE)
        checkpoint_id = None if row["checkpoint_id"] == missing else row["checkpoint_id"]
        if snapshot := await threads.read_thread(deps.graph, session_id, checkpoint_id):
            return SessionSnapshot(row, rows, state_of(snapshot))
        missing = checkpoint_id


async def _read_rows(
    deps: Deps, session_id: str, read_more: Callable[[Connection, RowMapping], RowsT]
) -> tuple[RowMapping, RowsT]:
    """Read under the row's lock, as every change of a session does: on Postgres each statement sees a newer state."""

    def read_locked(connection: Connection) -> tuple[RowMapping, RowsT]:
        row = leases.lock_row(connection, validate_id(session_id))
        if row is None or row["deleted_at"]:
            raise SessionNotFound(session_id)
        return row, read_more(connection, row)

    return await deps.database.transact(read_locked)


def _has_no_outcome(row: RowMapping) -> bool:
    """Return whether no run has ended yet: the thread may hold the rest of a first run that was interrupted."""
    return row["checkpoint_id"] is None and not row["message_count"] and row["agent"] == ORCHESTRATOR
