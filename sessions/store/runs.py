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

RUN_BY_KEY = select(runs).where(runs.c.session_id == bindparam("session"), runs.c.idempotency_key == bindparam("name"))

UPDATE_RUN = update(runs).where(runs.c.id == bindparam("run"))

FINISH_RUN = UPDATE_RUN.where(UNFINISHED)

FIRST_UNFINISHED = (
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


def add_run(
    connection: Connection,
    run_id: str,
    request: RunRequest,
    *,
    status: str,
    lease_epoch: int = 0,
    pause: Pause | None = None,
) -> None:
    """The next one of its session, whose row is locked. A key that an earlier run has stays with that one."""
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
    return connection.execute(select(runs).where(runs.c.id == run_id)).mappings().first()


def find_run_by_key(connection: Connection, session_id: str, key: str) -> RowMapping | None:
    return connection.execute(RUN_BY_KEY, {"session": session_id, "name": key}).mappings().first()


def list_runs(connection: Connection, session_id: str) -> Sequence[RowMapping]:
    """In their order."""
    return (
        connection.execute(select(runs).where(runs.c.session_id == session_id).order_by(runs.c.number)).mappings().all()
    )


def runs_with_usage(connection: Connection, session_id: str, limit: int) -> Sequence[RowMapping]:
    """The newest runs that asked a model, newest first."""
    mine = select(runs).where(runs.c.session_id == session_id, runs.c.usage.is_not(None))
    return connection.execute(mine.order_by(runs.c.number.desc()).limit(limit)).mappings().all()


def find_current_or_last(connection: Connection, session_id: str) -> RowMapping | None:
    """The one that goes on, else the one that is next, else the last one that did."""
    if unfinished := first_unfinished(connection, session_id):
        return unfinished
    newest = select(runs).where(runs.c.session_id == session_id).order_by(runs.c.number.desc()).limit(1)
    return connection.execute(newest).mappings().first()


def first_unfinished(connection: Connection, session_id: str) -> RowMapping | None:
    """The run that goes on, or was left behind, else the message that is next."""
    return connection.execute(FIRST_UNFINISHED, {"session": session_id}).mappings().first()


def queue_length(connection: Connection, session_id: str) -> int:
    """How many messages wait for their turn."""
    waits = and_(runs.c.session_id == session_id, UNFINISHED, runs.c.status == RunStatus.QUEUED)
    return connection.scalar(select(func.count()).select_from(runs).where(waits)) or 0


def list_orphaned_sessions(connection: Connection) -> list[str]:
    """Sessions with something to do that no replica works on."""
    unowned = select(runs.c.session_id).join(sessions, sessions.c.id == runs.c.session_id)
    return list(connection.scalars(unowned.where(UNFINISHED, not_(IS_LEASED)).distinct().limit(100)))


def request_stop(connection: Connection, session_id: str, reason: str) -> str | None:
    """Asks whoever carries out the session's run to stop it; the run's id."""
    found = first_unfinished(connection, session_id)
    if found is None or found["status"] == RunStatus.QUEUED:
        return None
    connection.execute(UPDATE_RUN, {"run": found["id"], "stop_requested": reason})
    run_id: str = found["id"]
    return run_id


def stop_requests(connection: Connection, owner: str) -> list[tuple[str, str]]:
    """Run and session of what a replica carries out and somebody wants to stop."""
    asked = select(runs.c.id, runs.c.session_id).join(sessions, sessions.c.id == runs.c.session_id)
    found = connection.execute(
        asked.where(UNFINISHED, runs.c.stop_requested.is_not(None), sessions.c.lease_owner == owner)
    )
    return [(run_id, session_id) for run_id, session_id in found]


def is_idle_and_paused(connection: Connection, session_id: str) -> bool:
    """Whether nothing goes on, and calls are open."""
    found = find_session(connection, session_id)
    return bool(found and found["pause"]) and first_unfinished(connection, session_id) is None


def start_queued(connection: Connection, run_id: str, lease_epoch: int, pause: Pause | None) -> bool:
    """Whether the message still waited, and is a run now."""
    waits = and_(runs.c.id == run_id, runs.c.status == RunStatus.QUEUED)
    told = pause and pause.model_dump(mode="json")
    begun = update(runs).where(waits).values(status=RunStatus.RUNNING, lease_epoch=lease_epoch, pause=told)
    return connection.execute(begun).rowcount > 0


def withdraw(connection: Connection, run_id: str) -> bool:
    """Whether the message still waited, and does not any more."""
    return connection.execute(delete(runs).where(runs.c.id == run_id, runs.c.status == RunStatus.QUEUED)).rowcount > 0


def withdraw_all(connection: Connection, session_id: str) -> None:
    """The messages that wait; who sent them is told."""
    connection.execute(delete(runs).where(runs.c.session_id == session_id, runs.c.status == RunStatus.QUEUED))


def release_idempotency_keys(connection: Connection, session_id: str, run_id: str | None, content: str) -> None:
    """Of the run that began a turn, and of those after it: what they took may be sent again, not what waits.

    Without an id it is the last one that sent this content.
    """
    found = [row for row in list_runs(connection, session_id) if _is_turn_start(row, run_id, content)]
    if found:
        after = and_(
            runs.c.session_id == session_id, runs.c.number >= found[-1]["number"], runs.c.status == RunStatus.DONE
        )
        connection.execute(update(runs).where(after).values(idempotency_key=None))


def _is_turn_start(row: RowMapping, run_id: str | None, content: str) -> bool:
    return bool(row["id"] == run_id if run_id else row["input"].get("content") == content)


def update_run(connection: Connection, run_id: str, **values: Any) -> None:
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
    """`session`: its row, locked. With `again` the run gives its key back: a retry is a new run.

    Once, also if the transaction is made again.
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
