"""The rows of runs. Each function executes a few statements in the caller's transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    String,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    not_,
    select,
    update,
)

from graph.execution.outcome import Outcome, Pause
from graph.timestamps import utc_timestamp
from graph.usage import totals
from graph.usage.totals import UsageTotals
from sessions.event_log import RunEvent
from sessions.request import RunRequest
from sessions.runs.status import RunStatus
from sessions.store.leases import IS_LEASED
from sessions.store.sessions import find_session, record_outcome
from sessions.store.tables import UNFINISHED, runs, sessions

SELECT_BY_KEY = select(runs).where(
    runs.c.session_id == bindparam("session"), runs.c.idempotency_key == bindparam("name")
)

UPDATE_RUN = update(runs).where(runs.c.id == bindparam("run"))

FINISH_RUN = UPDATE_RUN.where(UNFINISHED)
"""Changes no row that is done already: a transaction may be repeated."""

SELECT_FIRST_UNFINISHED = (
    select(runs).where(runs.c.session_id == bindparam("session"), UNFINISHED).order_by(runs.c.number).limit(1)
)

_EARLIER_RUNS = runs.alias()

_NEXT_NUMBER = select(func.coalesce(func.max(_EARLIER_RUNS.c.number), 0) + 1).where(
    _EARLIER_RUNS.c.session_id == bindparam("session")
)

_IS_KEY_TAKEN = exists().where(
    _EARLIER_RUNS.c.session_id == bindparam("session"), _EARLIER_RUNS.c.idempotency_key == bindparam("name")
)

ADD_RUN = insert(runs).values(
    session_id=bindparam("session"),
    idempotency_key=case((_IS_KEY_TAKEN, None), else_=bindparam("name", type_=String)),
    number=_NEXT_NUMBER.scalar_subquery(),
    **{
        name: bindparam(name)
        for name in ("id", "body_hash", "input", "options", "pause", "status", "lease_epoch", "created_at")
    },
)

"""The number and the key are read in the same statement: the session's row is locked, so no other run comes between."""

ORPHAN_BATCH = 100
"""Sessions that one heartbeat takes over at most; the next one continues. Chosen, not measured."""


def add_run(
    connection: Connection,
    run_id: str,
    request: RunRequest,
    *,
    status: str,
    lease_epoch: int = 0,
    pause: Pause | None = None,
) -> None:
    """Add the next run of a session, whose row must be locked. A key that an earlier run has stays with that run."""
    connection.execute(
        ADD_RUN,
        {
            "id": run_id,
            "session": request.session_id,
            "name": request.key,
            "body_hash": request.body_hash,
            "input": request.message.model_dump(mode="json", exclude_none=True),
            "options": request.options.model_dump(),
            "pause": pause and pause.model_dump(mode="json"),
            "status": status,
            "lease_epoch": lease_epoch,
            "created_at": utc_timestamp(),
        },
    )


def find_run(connection: Connection, run_id: str) -> RowMapping | None:
    """Return the row of a run; None if there is none."""
    return connection.execute(select(runs).where(runs.c.id == run_id)).mappings().first()


def find_run_by_key(connection: Connection, session_id: str, key: str) -> RowMapping | None:
    """Return the row of the run with this idempotency key; None if there is none."""
    return connection.execute(SELECT_BY_KEY, {"session": session_id, "name": key}).mappings().first()


def list_runs(connection: Connection, session_id: str) -> Sequence[RowMapping]:
    """Return the runs of a session, oldest first."""
    return (
        connection.execute(select(runs).where(runs.c.session_id == session_id).order_by(runs.c.number)).mappings().all()
    )


def runs_with_usage(connection: Connection, session_id: str, limit: int) -> Sequence[RowMapping]:
    """Return the newest runs with model calls, newest first."""
    mine = select(runs).where(runs.c.session_id == session_id, runs.c.usage.is_not(None))
    return connection.execute(mine.order_by(runs.c.number.desc()).limit(limit)).mappings().all()


def find_current_or_last(connection: Connection, session_id: str) -> RowMapping | None:
    """Return the current run, else the first queued one, else the last one that is done; None if there is none."""
    if unfinished := first_unfinished(connection, session_id):
        return unfinished
    newest = select(runs).where(runs.c.session_id == session_id).order_by(runs.c.number.desc()).limit(1)
    return connection.execute(newest).mappings().first()


def first_unfinished(connection: Connection, session_id: str) -> RowMapping | None:
    """Return the run that is current or was interrupted, else the first queued one; None if all are done."""
    return connection.execute(SELECT_FIRST_UNFINISHED, {"session": session_id}).mappings().first()


def queue_length(connection: Connection, session_id: str) -> int:
    """Return the number of queued messages."""
    is_queued = and_(runs.c.session_id == session_id, UNFINISHED, runs.c.status == RunStatus.QUEUED)
    return connection.scalar(select(func.count()).select_from(runs).where(is_queued)) or 0


def list_orphaned_sessions(connection: Connection) -> list[str]:
    """Return the ids of sessions with unfinished runs and no valid lease, at most `ORPHAN_BATCH` of them."""
    unfinished = select(runs.c.session_id).join(sessions, sessions.c.id == runs.c.session_id)
    return list(connection.scalars(unfinished.where(UNFINISHED, not_(IS_LEASED)).distinct().limit(ORPHAN_BATCH)))


def request_stop(connection: Connection, session_id: str, reason: str) -> str | None:
    """Ask the replica that executes the session's run to stop it; return the run's id, or None without such a run."""
    row = first_unfinished(connection, session_id)
    if row is None or row["status"] == RunStatus.QUEUED:
        return None
    connection.execute(UPDATE_RUN, {"run": row["id"], "stop_requested": reason})
    run_id: str = row["id"]
    return run_id


def stop_requests(connection: Connection, owner: str) -> list[tuple[str, str]]:
    """Return the run and session ids of a replica's runs that have a stop request."""
    ids = select(runs.c.id, runs.c.session_id).join(sessions, sessions.c.id == runs.c.session_id)
    found = connection.execute(
        ids.where(UNFINISHED, runs.c.stop_requested.is_not(None), sessions.c.lease_owner == owner)
    )
    return [(run_id, session_id) for run_id, session_id in found]


def is_idle_and_paused(connection: Connection, session_id: str) -> bool:
    """Return whether the session has open calls and no unfinished run."""
    row = find_session(connection, session_id)
    return bool(row and row["pause"]) and first_unfinished(connection, session_id) is None


def start_queued(connection: Connection, run_id: str, lease_epoch: int, pause: Pause | None) -> bool:
    """Mark a queued message as running; return False if it is not queued any more."""
    is_queued = and_(runs.c.id == run_id, runs.c.status == RunStatus.QUEUED)
    answered = pause and pause.model_dump(mode="json")
    start = update(runs).where(is_queued).values(status=RunStatus.RUNNING, lease_epoch=lease_epoch, pause=answered)
    return connection.execute(start).rowcount > 0


def withdraw(connection: Connection, run_id: str) -> bool:
    """Delete a queued message; return False if it is not queued any more."""
    return connection.execute(delete(runs).where(runs.c.id == run_id, runs.c.status == RunStatus.QUEUED)).rowcount > 0


def withdraw_all(connection: Connection, session_id: str) -> None:
    """Delete the queued messages of a session. Their followers see that the rows are gone, and report it."""
    connection.execute(delete(runs).where(runs.c.session_id == session_id, runs.c.status == RunStatus.QUEUED))


def release_idempotency_keys(connection: Connection, session_id: str, run_id: str | None, content: str) -> None:
    """Release the keys of the run that began a turn and of all done runs after it: their messages may be sent again.

    Queued messages keep their keys. Without a run id, the turn began with the last run that sent this content.
    """
    starts = [row for row in list_runs(connection, session_id) if _is_turn_start(row, run_id, content)]
    if starts:
        is_undone = and_(
            runs.c.session_id == session_id, runs.c.number >= starts[-1]["number"], runs.c.status == RunStatus.DONE
        )
        connection.execute(update(runs).where(is_undone).values(idempotency_key=None))


def _is_turn_start(row: RowMapping, run_id: str | None, content: str) -> bool:
    return bool(row["id"] == run_id if run_id else row["input"].get("content") == content)


def update_run(connection: Connection, run_id: str, **values: Any) -> None:
    """Change columns of a run's row."""
    connection.execute(UPDATE_RUN, {"run": run_id, **values})


def finish_run(
    connection: Connection,
    run_id: str,
    session: RowMapping,
    outcome: Outcome,
    events: list[RunEvent],
    usage: UsageTotals | None,
    *,
    lease_epoch: int,
    release_key: bool,
) -> None:
    """Store the outcome of a run in its row and in that of its `session`, which must be locked.

    With `release_key` a retry of the message is a new run. If the transaction is repeated, nothing is stored twice.
    """
    values: dict[str, Any] = {
        "status": RunStatus.DONE,
        "events": [event[:3] for event in events],
        "finished_at": utc_timestamp(),
    }
    if release_key:
        values["idempotency_key"] = None
    if connection.execute(FINISH_RUN, {"run": run_id, "usage": usage, "lease_epoch": lease_epoch, **values}).rowcount:
        used = totals.add_run(session["usage"], usage)
        record_outcome(connection, session["id"], outcome, usage=used, runs_since_prune=session["runs_since_prune"] + 1)
