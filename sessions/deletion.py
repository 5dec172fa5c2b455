"""Delete sessions: on a user's request, or after a long time without activity."""

import logging

from sqlalchemy import Connection, RowMapping

from graph.db.fencing import FencingToken
from graph.execution.closing import delete_thread
from graph.timestamps import utc_timestamp
from sessions.deps import Deps
from sessions.lookup import find_session, lease_each, lease_session
from sessions.shapes import DeletedSession
from sessions.store import leases
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows

log = logging.getLogger("agent_runtime.janitor")


async def delete_session(deps: Deps, session_id: str, *, hard: bool) -> DeletedSession:
    """Hide the session, or erase it if `hard`. Raises SessionNotFound, SessionBusy.

    A hidden session keeps its rows until its id is used again; of an erased one nothing is left. The current run is
    stopped first and queued messages are withdrawn: the user does not want their answers.
    """
    await find_session(deps, session_id, include_deleted=hard)
    await deps.database.transact(lambda connection: run_rows.withdraw_all(connection, session_id))
    await deps.runs.stop(session_id)
    async with lease_session(deps, session_id, include_deleted=hard) as (_, lease):
        await hide_session(deps, lease)
        if hard:
            await erase_session(deps, lease)
    return {"session_id": session_id, "deleted": True, "hard": hard}


async def hide_session(deps: Deps, lease: FencingToken) -> None:
    """Mark the session as deleted, and withdraw its queued messages."""

    def hide_rows(connection: Connection) -> None:
        leases.require_lease(connection, lease)
        run_rows.withdraw_all(connection, lease.session_id)
        session_rows.update_session(connection, lease.session_id, deleted_at=utc_timestamp())

    await deps.database.transact(hide_rows)


async def erase_session(deps: Deps, lease: FencingToken) -> None:
    """Delete the thread, then every row. After a crash in between the session is hidden and can be erased again."""

    def erase_rows(connection: Connection) -> None:
        if leases.lock_row(connection, lease.session_id):
            leases.require_lease(connection, lease)
            session_rows.erase_session(connection, lease.session_id)

    await delete_thread(deps.graph, lease.session_id)
    await deps.database.transact(erase_rows)


async def erase_expired_sessions(deps: Deps, hours: float) -> None:
    """Erase sessions without activity for `hours`, hidden ones too, but none with open calls or unfinished runs."""

    async def erase_if_expired(row: RowMapping, lease: FencingToken) -> None:
        if session_rows.is_expired(row, hours * 3600):
            await hide_session(deps, lease)
            await erase_session(deps, lease)
            log.info("session %s had no activity for %g hours; it is erased", lease.session_id, hours)

    expired = await deps.database.transact(lambda c: session_rows.find_expired(c, hours * 3600))
    await lease_each(deps, expired, erase_if_expired, include_deleted=True)
