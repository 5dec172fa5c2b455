"""Read the stored events of runs: of the last one of a session, and of those that other replicas executed."""

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, select

from graph import wire
from graph.errors import Interrupted
from graph.execution.outcome import Pause
from sessions.event_log import NUMBERS_PER_ATTEMPT, RunEvent
from sessions.runs.idempotency import call_not_open_error, is_open
from sessions.runs.status import RunStatus
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.tables import runs


def replay_latest_run(connection: Connection, session_id: str) -> tuple[RowMapping | None, list[RunEvent]]:
    """Return the row of the current run, or of the last one, and its stored events."""
    row = run_rows.find_current_or_last(connection, session_id)
    return row, _replay_events(connection, row) if row else []


def read_finished_events(connection: Connection, run_ids: Sequence[str]) -> dict[str, list[RunEvent]]:
    """Return the events of those runs that are done or were withdrawn, by run id."""
    mine = runs.c.id.in_(run_ids)
    there = set(connection.scalars(select(runs.c.id).where(mine)))
    done = connection.execute(select(runs).where(mine, runs.c.status == RunStatus.DONE)).mappings().all()
    gone = {run_id: [_WITHDRAWN_EVENT] for run_id in run_ids if run_id not in there}
    return gone | {row["id"]: _replay_events(connection, row) for row in done}


_WITHDRAWN_EVENT = RunEvent(
    NUMBERS_PER_ATTEMPT - 1,
    "error",
    wire.error_chunk(Interrupted("The message was not taken. Send it again.")).to_json_line(),
)


def _replay_events(connection: Connection, row: RowMapping) -> list[RunEvent]:
    pause = session_rows.pause_of(session_rows.find_session(connection, row["session_id"]))
    return [_replace_closed_call(RunEvent(*event), pause) for event in row["events"] or []]


def _replace_closed_call(event: RunEvent, pause: Pause | None) -> RunEvent:
    """Replace a tool call that is not open any more by an error, under the same number."""
    chunk = wire.CHUNK_ADAPTER.validate_json(event.data)
    if not isinstance(chunk, wire.ToolCall) or is_open(chunk, pause):
        return event
    error = wire.error_chunk(call_not_open_error(chunk, pause)).model_copy(update={"is_final": chunk.is_final})
    return event._replace(name="error", data=error.to_json_line())
