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

# Built once: SQLAlchemy takes longer to build a statement than SQLite to execute it.
SELECT_SESSION = select(sessions).where(sessions.c.id == bindparam("session"))

UPDATE_SESSION = update(sessions).where(sessions.c.id == bindparam("session"))

_IS_UNPAUSED = sessions.c.pause.is_(null())

_IS_IDLE = and_(
    not_(func.coalesce(IS_LEASED, false())), not_(exists().where(runs.c.session_id == sessions.c.id, UNFINISHED))
)

SWEEP_BATCH = 1_000
"""Sessions of one sweep, every ten minutes. With fifty, the sweeps of a busy service never caught up."""

MESSAGES_PER_RUN = 10
"""A thread is pruned again after one run for each so many messages.

Pruning rewrites all messages. A thread of 10,000 messages waits for 1,000 runs, so that the cost per run stays flat.
"""

MAX_TITLE_CHARACTERS = 80
"""Characters of a title that the service makes itself. Chosen to fit on one line of a list; not measured."""


def find_including_deleted(connection: Connection, session_id: str) -> RowMapping | None:
    """Return the row of a session, hidden or not; None if there is none."""
    return connection.execute(SELECT_SESSION, {"session": session_id}).mappings().first()


def find_session(connection: Connection, session_id: str) -> RowMapping | None:
    """Return the row of a session; None if there is none, or it is hidden."""
    row = find_including_deleted(connection, session_id)
    return None if row is None or row["deleted_at"] else row


def create_session(connection: Connection, session_id: str, title: str = "") -> dict[str, Any]:
    """Create a session and return its first values. A hidden session of this id must have been cleared before.

    Raises IntegrityError if there is a session of this id.
    """
    row = {"id": session_id, "title": title, "title_folded": title.casefold(), "agent": ORCHESTRATOR}
    row |= {"created_at": utc_timestamp(), "last_activity": utc_timestamp()}
    connection.execute(insert(sessions), row)
    return row


def clear_deleted(connection: Connection, session_id: str) -> None:
    """Delete a hidden session's rows, so that its id can be used again. Its audit stays."""
    connection.execute(delete(sessions).where(sessions.c.id == session_id, sessions.c.deleted_at.is_not(None)))
    for table in (runs, calls, grants, routings):
        connection.execute(delete(table).where(table.c.session_id == session_id))


def list_sessions(connection: Connection, q: str, limit: int, offset: int) -> tuple[list[SessionInfo], int]:
    """Return a page of the sessions whose title contains `q`, newest activity first, and the number of all of them."""
    has_title = sessions.c.title_folded.contains(q.casefold(), autoescape=True) if q else true()
    matches = and_(sessions.c.deleted_at.is_(None), has_title)
    order = (sessions.c.last_activity.desc(), sessions.c.id)
    rows = connection.execute(select(sessions).where(matches).order_by(*order).limit(limit).offset(offset))
    total = connection.scalar(select(func.count()).select_from(sessions).where(matches))
    return [to_json(row) for row in rows.mappings()], total or 0


def to_json(row: RowMapping) -> SessionInfo:
    """Return a session as clients see it."""
    return {
        "session_id": row["id"],
        "id": row["id"],
        "message_count": row["message_count"],
        "last_activity": row["last_activity"],
        "current_agent": row["agent"],
        "title": row["title"],
        "description": row["description"],
        "created_at": row["created_at"],
    }


def rename_session(connection: Connection, session_id: str, names: dict[str, str]) -> None:
    """Store the `title`, the `description` or both, as the user wrote them."""
    if "title" in names:
        set_title(connection, session_id, names["title"], titled_by="user")
    if "description" in names:
        update_session(connection, session_id, description=names["description"])


def set_title(connection: Connection, session_id: str, title: str, *, titled_by: str) -> None:
    """Store a title with its origin: message, model or user.

    It is stored casefolded as well, for the search: databases fold only some of the letters that users write.
    """
    update_session(connection, session_id, title=title, title_folded=title.casefold(), titled_by=titled_by)


def update_session(connection: Connection, session_id: str, **values: Any) -> None:
    """Change columns of a session's row."""
    connection.execute(UPDATE_SESSION, {"session": session_id, **values})


def erase_session(connection: Connection, session_id: str) -> None:
    """Delete every row of the session, its audit as well."""
    for table in (runs, calls, audit_log, audit_results, grants, routings):
        connection.execute(delete(table).where(table.c.session_id == session_id))
    connection.execute(delete(sessions).where(sessions.c.id == session_id))


def find_expired(connection: Connection, seconds: float) -> list[str]:
    """Return the ids of idle sessions, hidden ones too, without activity for `seconds`; the oldest first.

    A visible session with open calls does not expire. At most `SWEEP_BATCH` are returned.
    """
    is_old = and_(
        sessions.c.last_activity < timestamp_ago(seconds), or_(_IS_UNPAUSED, sessions.c.deleted_at.is_not(None))
    )
    ids = select(sessions.c.id).where(is_old, _IS_IDLE).order_by(sessions.c.last_activity).limit(SWEEP_BATCH)
    return list(connection.scalars(ids))


def is_expired(row: RowMapping, seconds: float) -> bool:
    """Return whether a session that `find_expired` returned, and that is leased now, is still expired."""
    return row["last_activity"] < timestamp_ago(seconds) and (row["pause"] is None or row["deleted_at"] is not None)


def prune_candidates(connection: Connection, more_than: int) -> list[str]:
    """Return the ids of idle sessions with more runs than that since they were pruned; the most runs first.

    A long thread is pruned less often, see `MESSAGES_PER_RUN`. At most `SWEEP_BATCH` are returned.
    """
    runs_since = sessions.c.runs_since_prune
    is_due = and_(runs_since > more_than, runs_since * MESSAGES_PER_RUN > sessions.c.message_count)
    is_candidate = and_(is_due, _IS_UNPAUSED, sessions.c.deleted_at.is_(None))
    ids = select(sessions.c.id).where(is_candidate, _IS_IDLE).order_by(runs_since.desc()).limit(SWEEP_BATCH)
    return list(connection.scalars(ids))


def record_outcome(connection: Connection, session_id: str, outcome: Outcome, **values: Any) -> None:
    """Store the state of the thread in the session's row, with `values` for other columns of it."""
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


def pause_of(row: RowMapping | None) -> Pause | None:
    """Return the pause in the row of a session or a run; None if there is no row, or no pause in it."""
    return Pause.model_validate(row["pause"]) if row and row["pause"] else None
