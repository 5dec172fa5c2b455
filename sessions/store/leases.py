"""Who may write to a session: one replica at a time, by a lease in the session's row. Functions of a few statements.

A lease has an epoch that grows with each taking, also when the session is erased and made anew, and a time at which it
runs out. Whoever writes locks the row and compares the epoch, so that a replica that slept too long cannot write.
"""

import platform
from os import getpid
from uuid import uuid4

from sqlalchemy import BigInteger, Connection, RowMapping, and_, bindparam, case, cast, select, update

from graph.db.fencing import Fence, LeaseLost
from sessions.store.clock import clock
from sessions.store.tables import sessions

HELD = and_(sessions.c.owner.is_not(None), sessions.c.lease_until > clock())
_MICROSECONDS = cast(clock() * 1_000_000, BigInteger)
_NEXT_EPOCH = case((sessions.c.epoch >= _MICROSECONDS, sessions.c.epoch + 1), else_=_MICROSECONDS)
_UNTIL = clock() + bindparam("seconds")

LOCKED = select(sessions, HELD.label("held")).where(sessions.c.id == bindparam("session")).with_for_update()
UNLOCKED = LOCKED.with_for_update(skip_locked=True)
TAKE = (
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values(owner=bindparam("replica"), epoch=_NEXT_EPOCH, lease_until=_UNTIL)
    .returning(sessions.c.epoch)
)
RENEW = (
    update(sessions)
    .where(sessions.c.owner == bindparam("replica"))
    .values(lease_until=_UNTIL)
    .returning(sessions.c.id, sessions.c.epoch)
)
RELEASE = (
    update(sessions)
    .where(sessions.c.id == bindparam("session"), sessions.c.epoch == bindparam("held"))
    .values(owner=None, lease_until=None)
)


def replica() -> str:
    """A name for this process, which no other one ever had."""
    return f"{platform.node()[:24]}-{getpid()}-{uuid4().hex[:12]}"


def locked(connection: Connection, session_id: str) -> RowMapping | None:
    """The session's row, `held` telling whether a lease on it is good; nobody else changes it in this transaction."""
    return connection.execute(LOCKED, {"session": session_id}).mappings().first()


def unlocked(connection: Connection, session_id: str) -> RowMapping | None:
    """As `locked`, but None at once if somebody else has locked it: who sleeps there must not hold up the others."""
    return connection.execute(UNLOCKED, {"session": session_id}).mappings().first()


def take(connection: Connection, session_id: str, owner: str, seconds: float) -> Fence:
    """Of a session whose row is locked, and not held."""
    epoch = connection.scalar(TAKE, {"session": session_id, "replica": owner, "seconds": seconds})
    assert epoch is not None
    return Fence(session_id, owner, epoch)


def checked(connection: Connection, lease: Fence) -> RowMapping:
    """The session's row, locked. Raises LeaseLost."""
    row = locked(connection, lease.session_id)
    if row is None or (row["owner"], row["epoch"]) != (lease.owner, lease.epoch):
        raise LeaseLost(lease.session_id)
    return row


def renew(connection: Connection, owner: str, seconds: float) -> set[Fence]:
    """All that a replica holds, in one statement."""
    rows = connection.execute(RENEW, {"replica": owner, "seconds": seconds})
    return {Fence(session_id, owner, epoch) for session_id, epoch in rows}


def release(connection: Connection, lease: Fence) -> None:
    connection.execute(RELEASE, {"session": lease.session_id, "held": lease.epoch})


def release_all(connection: Connection) -> None:
    """For a database that only this process may open: whoever held a lease is dead."""
    connection.execute(update(sessions).values(owner=None, lease_until=None).where(sessions.c.owner.is_not(None)))
