"""Who may write to a session: one replica at a time, by a lease in the session's row. Functions of a few statements.

A lease has an epoch that grows with each taking, also when the session is erased and made anew, and a time at which it
runs out. Whoever writes locks the row and compares the epoch, so that a replica that slept too long cannot write.
"""

import platform
from os import getpid
from uuid import uuid4

from sqlalchemy import BigInteger, Connection, RowMapping, and_, bindparam, case, cast, select, update

from graph.db.fencing import FencingToken, LeaseLost
from sessions.store.clock import clock
from sessions.store.tables import sessions

IS_LEASED = and_(sessions.c.lease_owner.is_not(None), sessions.c.lease_expires_at > clock())
_MICROSECONDS = cast(clock() * 1_000_000, BigInteger)
_NEXT_EPOCH = case((sessions.c.lease_epoch >= _MICROSECONDS, sessions.c.lease_epoch + 1), else_=_MICROSECONDS)
_NEW_EXPIRY = clock() + bindparam("seconds")

SELECT_AND_LOCK = (
    select(sessions, IS_LEASED.label("held")).where(sessions.c.id == bindparam("session")).with_for_update()
)
SELECT_IF_UNLOCKED = SELECT_AND_LOCK.with_for_update(skip_locked=True)
ACQUIRE_LEASE = (
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values(lease_owner=bindparam("replica"), lease_epoch=_NEXT_EPOCH, lease_expires_at=_NEW_EXPIRY)
    .returning(sessions.c.lease_epoch)
)
RENEW_LEASES = (
    update(sessions)
    .where(sessions.c.lease_owner == bindparam("replica"))
    .values(lease_expires_at=_NEW_EXPIRY)
    .returning(sessions.c.id, sessions.c.lease_epoch)
)
RELEASE_LEASE = (
    update(sessions)
    .where(sessions.c.id == bindparam("session"), sessions.c.lease_epoch == bindparam("held"))
    .values(lease_owner=None, lease_expires_at=None)
)


def make_replica_name() -> str:
    """A name for this process, which no other one ever had."""
    return f"{platform.node()[:24]}-{getpid()}-{uuid4().hex[:12]}"


def lock_row(connection: Connection, session_id: str) -> RowMapping | None:
    """The session's row, `held` telling whether a lease on it is good; nobody else changes it in this transaction."""
    return connection.execute(SELECT_AND_LOCK, {"session": session_id}).mappings().first()


def try_lock_row(connection: Connection, session_id: str) -> RowMapping | None:
    """As `locked`, but None at once if somebody else has locked it: who sleeps there must not hold up the others."""
    return connection.execute(SELECT_IF_UNLOCKED, {"session": session_id}).mappings().first()


def acquire_lease(connection: Connection, session_id: str, owner: str, seconds: float) -> FencingToken:
    """Of a session whose row is locked, and not held."""
    epoch = connection.scalar(ACQUIRE_LEASE, {"session": session_id, "replica": owner, "seconds": seconds})
    assert epoch is not None
    return FencingToken(session_id, owner, epoch)


def require_lease(connection: Connection, lease: FencingToken) -> RowMapping:
    """The session's row, locked. Raises LeaseLost."""
    row = lock_row(connection, lease.session_id)
    if row is None or (row["lease_owner"], row["lease_epoch"]) != (lease.owner, lease.epoch):
        raise LeaseLost(lease.session_id)
    return row


def renew_leases(connection: Connection, owner: str, seconds: float) -> set[FencingToken]:
    """All that a replica holds, in one statement."""
    rows = connection.execute(RENEW_LEASES, {"replica": owner, "seconds": seconds})
    return {FencingToken(session_id, owner, epoch) for session_id, epoch in rows}


def release_lease(connection: Connection, lease: FencingToken) -> None:
    connection.execute(RELEASE_LEASE, {"session": lease.session_id, "held": lease.epoch})


def release_all(connection: Connection) -> None:
    """For a database that only this process may open: whoever held a lease is dead."""
    connection.execute(
        update(sessions).values(lease_owner=None, lease_expires_at=None).where(sessions.c.lease_owner.is_not(None))
    )
