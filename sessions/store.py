"""The rows of sessions and runs. Each function is a few statements in the caller's transaction."""

from typing import Any

from sqlalchemy import RowMapping, and_, delete, func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from graph import wire
from graph.state import now
from graph.turn import Outcome, Pause
from prompts import ORCHESTRATOR
from sessions.events import Event
from sessions.tables import audit_log, runs, sessions

TITLE = 80
"""Characters of a session's first message that make its title."""


async def row(connection: AsyncConnection, session_id: str) -> RowMapping | None:
    """Of a session, deleted or not."""
    return (await connection.execute(select(sessions).where(sessions.c.id == session_id))).mappings().first()


async def session(connection: AsyncConnection, session_id: str) -> RowMapping | None:
    """None if there is none, or it was deleted."""
    found = await row(connection, session_id)
    return None if found is None or found["deleted_at"] else found


async def create(connection: AsyncConnection, session_id: str, title: str = "") -> dict[str, Any]:
    """A new session; one that was deleted under this id must have been cleared."""
    row = {"id": session_id, "title": title, "description": "", "agent": ORCHESTRATOR, "message_count": 0}
    row |= {"created_at": now(), "last_activity": now(), "pause": None, "deleted_at": None}
    await connection.execute(insert(sessions).values(**row))
    return row


async def clear_deleted(connection: AsyncConnection, session_id: str) -> None:
    await connection.execute(delete(sessions).where(sessions.c.id == session_id, sessions.c.deleted_at.is_not(None)))
    await connection.execute(delete(runs).where(runs.c.session_id == session_id))


async def listed(connection: AsyncConnection, q: str, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The newest activity first, and how many there are in all."""
    wanted = func.lower(sessions.c.title).contains(q.lower(), autoescape=True) if q else true()
    found = and_(sessions.c.deleted_at.is_(None), wanted)
    order = (sessions.c.last_activity.desc(), sessions.c.id)
    rows = await connection.execute(select(sessions).where(found).order_by(*order).limit(limit).offset(offset))
    total = await connection.scalar(select(func.count()).select_from(sessions).where(found))
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


async def change(connection: AsyncConnection, session_id: str, **values: Any) -> None:
    await connection.execute(update(sessions).where(sessions.c.id == session_id).values(**values))


async def erase(connection: AsyncConnection, session_id: str) -> None:
    """Every row of the session, its audit as well."""
    for table, column in ((runs, runs.c.session_id), (audit_log, audit_log.c.session_id), (sessions, sessions.c.id)):
        await connection.execute(delete(table).where(column == session_id))


async def add_run(
    connection: AsyncConnection, run_id: str, session_id: str, request: "wire.Message", asked: dict[str, Any]
) -> None:
    body = request.model_dump(mode="json", exclude_none=True)
    await connection.execute(
        insert(runs).values(
            id=run_id, session_id=session_id, input=body, status="running", attempts=1, created_at=now(), **asked
        )
    )
    await change(connection, session_id, last_activity=now())


async def run_by_key(connection: AsyncConnection, session_id: str, key: str) -> RowMapping | None:
    found = select(runs).where(runs.c.session_id == session_id, runs.c.key == key)
    return (await connection.execute(found)).mappings().first()


async def last_run(connection: AsyncConnection, session_id: str) -> RowMapping | None:
    newest = select(runs).where(runs.c.session_id == session_id).order_by(runs.c.created_at.desc()).limit(1)
    return (await connection.execute(newest)).mappings().first()


async def unfinished(connection: AsyncConnection) -> list[RowMapping]:
    """The runs that a process left behind, oldest first."""
    left = select(runs).where(runs.c.status == "running").order_by(runs.c.created_at)
    return list((await connection.execute(left)).mappings())


async def attempt(connection: AsyncConnection, run_id: str, number: int) -> None:
    await connection.execute(update(runs).where(runs.c.id == run_id).values(attempts=number))


async def finish(
    connection: AsyncConnection,
    run_id: str,
    session_id: str,
    outcome: Outcome,
    events: list[Event],
    *,
    failed: bool,
) -> None:
    """A failed run gives its key back, so that a retry is a new run."""
    values: dict[str, Any] = {"status": "failed" if failed else "done", "events": [event[:3] for event in events]}
    if failed:
        values["key"] = None
    await connection.execute(update(runs).where(runs.c.id == run_id).values(**values))
    await rest(connection, session_id, outcome)


async def rest(connection: AsyncConnection, session_id: str, outcome: Outcome) -> None:
    """What the session's row says of its thread between two runs."""
    await change(
        connection,
        session_id,
        agent=outcome.agent,
        message_count=outcome.message_count,
        pause=outcome.pause and outcome.pause.model_dump(mode="json"),
        last_activity=now(),
    )


def pause_of(row: Any) -> Pause | None:
    return Pause.model_validate(row["pause"]) if row and row["pause"] else None
