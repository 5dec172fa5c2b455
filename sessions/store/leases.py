"""The leases of sessions, in their rows: one replica at a time may write to a session.

A lease has an epoch and an expiry. The epoch grows with each acquisition, also when the session is erased and created
again. Every write locks the row and compares the epoch, so that a replica that slept too long cannot write.

Each function executes a few statements in the caller's transaction.
"""

import platform
from os import getpid
from uuid import uuid4

from sqlalchemy import BigInteger, Connection, RowMapping, and_, bindparam, case, cast, select, update

from graph.db.fencing import FencingToken, LeaseLost
from sessions.store.clock import clock
from sessions.store.tables import sessions

IS_LEASED = and_(sessions.c.lease_owner.is_not(None), sessions.c.lease_expires_at > clock())
_CLOCK_MICROSECONDS = cast(clock() * 1_000_000, BigInteger)
_NEXT_EPOCH = case(
    (sessions.c.lease_epoch >= _CLOCK_MICROSECONDS, sessions.c.lease_epoch + 1), else_=_CLOCK_MICROSECONDS
)
"""The clock in microseconds, or the last epoch plus one if that is higher. So epochs grow even if a row was erased."""
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


HOST_NAME_CHARACTERS = 24
"""Enough of the host's name to find the machine. The whole name has to fit into `sessions.lease_owner`."""
SUFFIX_CHARACTERS = 12
"""48 random bits: host and process id alone come back, for example in each container that starts."""


def make_replica_name() -> str:
    """Return a name for this process that no other process ever had."""
    return f"{platform.node()[:HOST_NAME_CHARACTERS]}-{getpid()}-{uuid4().hex[:SUFFIX_CHARACTERS]}"


def lock_row(connection: Connection, session_id: str) -> RowMapping | None:
    """Lock and return the session's row; None if there is none. Its `held` is true while the lease has not expired.

    No other transaction changes the row before this one ends.
    """
    return connection.execute(SELECT_AND_LOCK, {"session": session_id}).mappings().first()


def try_lock_row(connection: Connection, session_id: str) -> RowMapping | None:
    """Do as `lock_row`, but return None at once if another transaction has the lock.

    A process that sleeps with the lock must not delay the other sessions.
    """
    return connection.execute(SELECT_IF_UNLOCKED, {"session": session_id}).mappings().first()


def acquire_lease(connection: Connection, session_id: str, owner: str, seconds: float) -> FencingToken:
    """Acquire the lease of a session for so many seconds. Its row must be locked, and no other lease may be valid."""
    epoch = connection.scalar(ACQUIRE_LEASE, {"session": session_id, "replica": owner, "seconds": seconds})
    assert epoch is not None
    return FencingToken(session_id, owner, epoch)


def require_lease(connection: Connection, lease: FencingToken) -> RowMapping:
    """Lock and return the session's row. Raises LeaseLost if another replica acquired the lease, or the row is gone."""
    row = lock_row(connection, lease.session_id)
    if row is None or (row["lease_owner"], row["lease_epoch"]) != (lease.owner, lease.epoch):
        raise LeaseLost(lease.session_id)
    return row


def renew_leases(connection: Connection, owner: str, seconds: float) -> set[FencingToken]:
    """Extend every lease of a replica to `seconds` from now, in one statement; return the leases."""
    rows = connection.execute(RENEW_LEASES, {"replica": owner, "seconds": seconds})
    return {FencingToken(session_id, owner, epoch) for session_id, epoch in rows}


def release_lease(connection: Connection, lease: FencingToken) -> None:
    """End the lease. A later lease of the same session stays as it is."""
    connection.execute(RELEASE_LEASE, {"session": lease.session_id, "held": lease.epoch})


def release_all(connection: Connection) -> None:
    """End the leases of all replicas. Only for a database that one process opens: the owners of the leases are dead."""
    connection.execute(
        update(sessions).values(lease_owner=None, lease_expires_at=None).where(sessions.c.lease_owner.is_not(None))
    )
