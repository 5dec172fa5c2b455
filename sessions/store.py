"""The rows of sessions and runs. Each function is a few statements in the caller's transaction."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, bindparam, delete, func, insert, select, true, update

from graph import wire
from graph.state import now
from graph.turn import Outcome, Pause
from prompts import ORCHESTRATOR
from sessions.events import Event
from sessions.tables import audit_log, audit_results, grants, runs, sessions

# Made once: SQLAlchemy spends more on making a statement than SQLite on running it.
ONE_SESSION = select(sessions).where(sessions.c.id == bindparam("session"))
CHANGE_SESSION = update(sessions).where(sessions.c.id == bindparam("session"))
RUN_BY_KEY = select(runs).where(runs.c.session_id == bindparam("session"), runs.c.key == bindparam("name"))
CHANGE_RUN = update(runs).where(runs.c.id == bindparam("run"))

TITLE = 80
"""Characters of a session's first message that make its title."""


def row(connection: Connection, session_id: str) -> RowMapping | None:
    """Of a session, deleted or not."""
    return connection.execute(ONE_SESSION, {"session": session_id}).mappings().first()


def session(connection: Connection, session_id: str) -> RowMapping | None:
    """None if there is none, or it was deleted."""
    found = row(connection, session_id)
    return None if found is None or found["deleted_at"] else found


def create(connection: Connection, session_id: str, title: str = "") -> dict[str, Any]:
    """A new session; one that was deleted under this id must have been cleared."""
    row = {"id": session_id, "title": title, "title_folded": title.casefold(), "agent": ORCHESTRATOR}
    row |= {"created_at": now(), "last_activity": now()}
    connection.execute(insert(sessions), row)
    return row


def clear_deleted(connection: Connection, session_id: str) -> None:
    connection.execute(delete(sessions).where(sessions.c.id == session_id, sessions.c.deleted_at.is_not(None)))
    connection.execute(delete(runs).where(runs.c.session_id == session_id))
    connection.execute(delete(grants).where(grants.c.session_id == session_id))


def listed(connection: Connection, q: str, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The newest activity first, and how many there are in all."""
    wanted = sessions.c.title_folded.contains(q.casefold(), autoescape=True) if q else true()
    found = and_(sessions.c.deleted_at.is_(None), wanted)
    order = (sessions.c.last_activity.desc(), sessions.c.id)
    rows = connection.execute(select(sessions).where(found).order_by(*order).limit(limit).offset(offset))
    total = connection.scalar(select(func.count()).select_from(sessions).where(found))
    return [shown(row) for row in rows.mappings()], total or 0


def shown(row: RowMapping) -> dict[str, Any]:
    """A session as clients see it."""
    return {
        "session_id": row["id"],
        "message_count": row["message_count"],
        "last_activity": row["last_activity"],
        "current_agent": row["agent"],
        "title": row["title"],
        "description": row["description"],
        "created_at": row["created_at"],
    }


def rename(connection: Connection, session_id: str, names: dict[str, str]) -> None:
    """Databases fold only some of the letters of the world, so the folded title is a column of its own."""
    folded = {"title_folded": names["title"].casefold()} if "title" in names else {}
    change(connection, session_id, **names, **folded)


def change(connection: Connection, session_id: str, **values: Any) -> None:
    connection.execute(CHANGE_SESSION, {"session": session_id, **values})


def erase(connection: Connection, session_id: str) -> None:
    """Every row of the session, its audit as well."""
    for table in (runs, audit_log, audit_results, grants):
        connection.execute(delete(table).where(table.c.session_id == session_id))
    connection.execute(delete(sessions).where(sessions.c.id == session_id))


def add_run(connection: Connection, run_id: str, session_id: str, request: wire.Message, asked: dict[str, Any]) -> None:
    body = request.model_dump(mode="json", exclude_none=True)
    row = {"id": run_id, "session_id": session_id, "input": body, "status": "running", "created_at": now()}
    connection.execute(insert(runs), row | asked)


def run_by_key(connection: Connection, session_id: str, key: str) -> RowMapping | None:
    return connection.execute(RUN_BY_KEY, {"session": session_id, "name": key}).mappings().first()


def last_run(connection: Connection, session_id: str) -> RowMapping | None:
    newest = select(runs).where(runs.c.session_id == session_id).order_by(runs.c.created_at.desc()).limit(1)
    return connection.execute(newest).mappings().first()


def unfinished(connection: Connection, session_id: str | None = None) -> list[RowMapping]:
    """The runs whose outcome was not stored, of one session or of all, oldest first."""
    left = select(runs).where(runs.c.status == "running").order_by(runs.c.created_at)
    of_one = left.where(runs.c.session_id == session_id) if session_id else left
    return list(connection.execute(of_one).mappings())


def attempt(connection: Connection, run_id: str, number: int) -> None:
    connection.execute(CHANGE_RUN, {"run": run_id, "attempts": number})


def finish(
    connection: Connection,
    run_id: str,
    session_id: str,
    outcome: Outcome | None,
    events: list[Event],
    *,
    again: bool,
) -> None:
    values: dict[str, Any] = {"status": "done", "events": [event[:3] for event in events]}
    if again:
        values["key"] = None
    connection.execute(CHANGE_RUN, {"run": run_id, **values})
    if outcome:
        rest(connection, session_id, outcome)


def rest(connection: Connection, session_id: str, outcome: Outcome) -> None:
    """What the session's row says of its thread between two runs."""
    change(
        connection,
        session_id,
        agent=outcome.agent,
        message_count=outcome.message_count,
        pause=outcome.pause and outcome.pause.model_dump(mode="json"),
        last_activity=now(),
    )


def pause_of(row: Any) -> Pause | None:
    return Pause.model_validate(row["pause"]) if row and row["pause"] else None


def undecided(pause: Pause | None, seconds: float) -> set[str]:
    """The calls of a pause that wait for approval longer than that."""
    before = _ago(seconds)
    calls = pause.calls if pause else []
    return {each.call.call_id for each in calls if each.call.requires_approval and each.created_at < before}


def paused(connection: Connection, seconds: float) -> list[str]:
    """The sessions that wait for their client longer than that."""
    waits = and_(
        sessions.c.pause.is_not(None), sessions.c.deleted_at.is_(None), sessions.c.last_activity < _ago(seconds)
    )
    return list(connection.scalars(select(sessions.c.id).where(waits).limit(1000)))


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="microseconds")
