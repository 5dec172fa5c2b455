"""Find a session by the id that a client sent, with its lease if it is to be changed."""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import RowMapping

from graph import wire
from graph.db.fencing import FencingToken
from graph.errors import SessionBusy
from graph.sanitize import sanitize_value
from sessions.deps import Deps
from sessions.store import sessions as session_rows

log = logging.getLogger("agent_runtime.janitor")
SHOWN_ID_CHARS = 128
"""The part of an invalid id that an error repeats: as long as a valid id can be."""


class SessionNotFound(Exception):
    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session {session_id} not found")


def validate_id(session_id: str) -> str:
    """Return the id. Raises SessionNotFound for a text that no database should be asked for."""
    if not re.fullmatch(wire.ID_PATTERN, session_id):
        raise SessionNotFound(sanitize_value(session_id)[:SHOWN_ID_CHARS])
    return session_id


async def find_session(deps: Deps, session_id: str, *, include_deleted: bool = False) -> RowMapping:
    """Return the row of a session. Raises SessionNotFound."""
    find = session_rows.find_including_deleted if include_deleted else session_rows.find_session
    row = await deps.database.transact(lambda connection: find(connection, validate_id(session_id)))
    if row is None:
        raise SessionNotFound(session_id)
    return row


@asynccontextmanager
async def lease_session(
    deps: Deps, session_id: str, *, include_deleted: bool = False
) -> AsyncIterator[tuple[RowMapping, FencingToken]]:
    """Yield the row of an idle session, and its lease while the block runs. Raises SessionNotFound, SessionBusy."""
    async with AsyncExitStack() as stack:
        try:
            lease = await stack.enter_async_context(deps.runs.replica.lease_session(validate_id(session_id)))
        except KeyError:
            raise SessionNotFound(session_id) from None
        yield await find_session(deps, session_id, include_deleted=include_deleted), lease


async def lease_each(
    deps: Deps,
    session_ids: Iterable[str],
    work: Callable[[RowMapping, FencingToken], Awaitable[None]],
    *,
    include_deleted: bool,
) -> None:
    """Do `work` on one session after the other. A session that is busy, gone or broken does not stop the rest."""
    for session_id in session_ids:
        try:
            async with lease_session(deps, session_id, include_deleted=include_deleted) as (row, lease):
                await work(row, lease)
        except (SessionBusy, SessionNotFound):
            continue
        except Exception as error:
            log.error("session %s was not maintained, %s; the next sweep retries", session_id, type(error).__name__)
