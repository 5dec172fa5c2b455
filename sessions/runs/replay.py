"""What is told again of runs: of the last one of a session, and of those that other replicas carried out."""

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, select

from graph import wire
from graph.errors import Interrupted
from graph.execution.outcome import Pause
from sessions.event_log import ATTEMPT, Event
from sessions.runs.idempotency import closed, is_open
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.tables import runs


def last(connection: Connection, session_id: str) -> tuple[RowMapping | None, list[Event]]:
    """The session's run that goes on, or its last one, and what can be told of it."""
    row = run_rows.last_run(connection, session_id)
    return row, _still_true(connection, row) if row else []


def outcomes(connection: Connection, run_ids: Sequence[str]) -> dict[str, list[Event]]:
    """Of the runs that are done, or are not there any more."""
    mine = runs.c.id.in_(run_ids)
    there = set(connection.scalars(select(runs.c.id).where(mine)))
    done = connection.execute(select(runs).where(mine, runs.c.status == "done")).mappings().all()
    gone = {run_id: [_GONE] for run_id in run_ids if run_id not in there}
    return gone | {row["id"]: _still_true(connection, row) for row in done}


_GONE = Event(ATTEMPT - 1, "error", wire.failure(Interrupted("The message was not taken. Send it again.")).encoded())


def _still_true(connection: Connection, row: RowMapping) -> list[Event]:
    pause = session_rows.pause_of(session_rows.session(connection, row["session_id"]))
    return [_or_closed(Event(*event), pause) for event in row["events"] or []]


def _or_closed(event: Event, pause: Pause | None) -> Event:
    """In place of a call that is not open any more, under its number, that it is not."""
    chunk = wire.CHUNK.validate_json(event.data)
    if not isinstance(chunk, wire.ToolCall) or is_open(chunk, pause):
        return event
    error = wire.failure(closed(chunk, pause)).model_copy(update={"is_final": chunk.is_final})
    return event._replace(name="error", data=error.encoded())
