"""The rows of sessions. Each function executes a few statements in the caller's transaction."""

from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    and_,
    bindparam,
    delete,
    exists,
    false,
    func,
    insert,
    not_,
    null,
    or_,
    select,
    true,
    update,
)

from graph.execution.outcome import Outcome, Pause
from graph.timestamps import timestamp_ago, utc_timestamp
from prompts import ORCHESTRATOR
from sessions.shapes import SessionInfo
from sessions.store.leases import IS_LEASED
from sessions.store.tables import UNFINISHED, audit_log, audit_results, calls, grants, routings, runs, sessions

# Made once: SQLAlchemy spends more on making a statement than SQLite on running it.
SELECT_SESSION = select(sessions).where(sessions.c.id == bindparam("session"))

UPDATE_SESSION = update(sessions).where(sessions.c.id == bindparam("session"))

_IS_UNPAUSED = sessions.c.pause.is_(null())

_IS_IDLE = and_(
    not_(func.coalesce(IS_LEASED, false())), not_(exists().where(runs.c.session_id == sessions.c.id, UNFINISHED))
)

SWEEP_BATCH = 1_000
"""Sessions that are looked after in one sweep: with fewer the sweeps of a busy service would never catch up."""

MAX_TITLE_CHARACTERS = 80
"""Characters of a session's first message that make its title."""


def find_including_deleted(connection: Connection, session_id: str) -> RowMapping | None:
    """Of a session, deleted or not."""
    return connection.execute(SELECT_SESSION, {"session": session_id}).mappings().first()


def find_session(connection: Connection, session_id: str) -> RowMapping | None:
    """None if there is none, or it was deleted."""
    found = find_including_deleted(connection, session_id)
    return None if found is None or found["deleted_at"] else found


def create_session(connection: Connection, session_id: str, title: str = "") -> dict[str, Any]:
    """A new session; one that was deleted under this id must have been cleared."""
    row = {"id": session_id, "title": title, "title_folded": title.casefold(), "agent": ORCHESTRATOR}
    row |= {"created_at": utc_timestamp(), "last_activity": utc_timestamp()}
    connection.execute(insert(sessions), row)
    return row


def clear_deleted(connection: Connection, session_id: str) -> None:
    connection.execute(delete(sessions).where(sessions.c.id == session_id, sessions.c.deleted_at.is_not(None)))
    for table in (runs, calls, grants, routings):
        connection.execute(delete(table).where(table.c.session_id == session_id))


def list_sessions(connection: Connection, q: str, limit: int, offset: int) -> tuple[list[SessionInfo], int]:
    """The newest activity first, and how many there are in all."""
    wanted = sessions.c.title_folded.contains(q.casefold(), autoescape=True) if q else true()
    found = and_(sessions.c.deleted_at.is_(None), wanted)
    order = (sessions.c.last_activity.desc(), sessions.c.id)
    rows = connection.execute(select(sessions).where(found).order_by(*order).limit(limit).offset(offset))
    total = connection.scalar(select(func.count()).select_from(sessions).where(found))
    return [to_json(row) for row in rows.mappings()], total or 0


def to_json(row: RowMapping) -> SessionInfo:
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


def rename_session(connection: Connection, session_id: str, names: dict[str, str]) -> None:
    if "title" in names:
        set_title(connection, session_id, names["title"], titled_by="user")
    if "description" in names:
        update_session(connection, session_id, description=names["description"])


def set_title(connection: Connection, session_id: str, title: str, *, titled_by: str) -> None:
    """`by`: message, model or user. Databases fold only some of the letters of the world, so that is a column too."""
    update_session(connection, session_id, title=title, title_folded=title.casefold(), titled_by=titled_by)


def update_session(connection: Connection, session_id: str, **values: Any) -> None:
    connection.execute(UPDATE_SESSION, {"session": session_id, **values})


def erase_session(connection: Connection, session_id: str) -> None:
    """Every row of the session, its audit as well."""
    for table in (runs, calls, audit_log, audit_results, grants, routings):
        connection.execute(delete(table).where(table.c.session_id == session_id))
    connection.execute(delete(sessions).where(sessions.c.id == session_id))


def find_expired(connection: Connection, seconds: float) -> list[str]:
    """Sessions, deleted or not, that had no activity for longer, and that nobody and nothing waits for."""
    idle = and_(
        sessions.c.last_activity < timestamp_ago(seconds), or_(_IS_UNPAUSED, sessions.c.deleted_at.is_not(None))
    )
    found = select(sessions.c.id).where(idle, _IS_IDLE).order_by(sessions.c.last_activity).limit(SWEEP_BATCH)
    return list(connection.scalars(found))


def is_expired(row: RowMapping, seconds: float) -> bool:
    """Whether that is still so of a session whose lease is held."""
    return row["last_activity"] < timestamp_ago(seconds) and (row["pause"] is None or row["deleted_at"] is not None)


def prune_candidates(connection: Connection, more_than: int) -> list[str]:
    """Sessions at rest that had more runs than that since their thread was pruned.

    A long one is pruned less often: it is written anew as a whole.
    """
    many = and_(sessions.c.runs_since_prune > more_than, sessions.c.runs_since_prune * 10 > sessions.c.message_count)
    which = and_(many, _IS_UNPAUSED, sessions.c.deleted_at.is_(None))
    found = select(sessions.c.id).where(which, _IS_IDLE).order_by(sessions.c.runs_since_prune.desc()).limit(SWEEP_BATCH)
    return list(connection.scalars(found))


def record_outcome(connection: Connection, session_id: str, outcome: Outcome, **values: Any) -> None:
    """What the session's row says of its thread between two runs."""
    update_session(
        connection,
        session_id,
        agent=outcome.agent,
        message_count=outcome.message_count,
        pause=outcome.pause and outcome.pause.model_dump(mode="json"),
        checkpoint_id=outcome.checkpoint_id,
        last_activity=utc_timestamp(),
        **values,
    )


def pause_of(row: Any) -> Pause | None:
    return Pause.model_validate(row["pause"]) if row and row["pause"] else None
