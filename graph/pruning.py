"""Dropping what a thread was before a checkpoint that stands alone: all of it in one transaction, or nothing.

The savers cannot: SQLite's has no prune, Postgres' refuses threads with a DeltaChannel.
"""

from dataclasses import asdict
from functools import partial
from typing import Any

from graph.checkpointer import PostgresCheckpointer, Remembering, SQLiteCheckpointer
from graph.fence import FENCE, Fence, LeaseLost

OLDER = "thread_id = :thread and checkpoint_id < :head"
SQLITE = (
    f"delete from writes where {OLDER}",  # noqa: S608
    f"delete from checkpoints where {OLDER}",  # noqa: S608
    "update checkpoints set parent_checkpoint_id = null where thread_id = :thread and checkpoint_id = :head",
)
POSTGRES = (
    "delete from checkpoint_writes where thread_id = %(thread)s and checkpoint_id < %(head)s",
    "delete from checkpoints where thread_id = %(thread)s and checkpoint_id < %(head)s",
    "update checkpoints set parent_checkpoint_id = null where thread_id = %(thread)s and checkpoint_id = %(head)s",
    """
    delete from checkpoint_blobs b where thread_id = %(thread)s and not exists (
        select 1 from checkpoints c
        where c.thread_id = b.thread_id and c.checkpoint_ns = b.checkpoint_ns
        and c.checkpoint -> 'channel_versions' ->> b.channel = b.version
    )
    """,
)
HELD = "select 1 from sessions where id = :session_id and owner = :owner and epoch = :epoch"
HOLD = "select 1 from sessions where id = %(session_id)s and owner = %(owner)s and epoch = %(epoch)s for share"


async def keep_only(saver: Remembering, thread_id: str, head: str) -> None:
    """Of the checkpoints up to `head`, which has to need none of them. Raises LeaseLost."""
    which = {"thread": thread_id, "head": head}
    match saver:
        case SQLiteCheckpointer():
            await saver._hop(partial(_sqlite, saver, which, FENCE.get()))
        case PostgresCheckpointer():
            await _postgres(saver, which, FENCE.get())


def _sqlite(saver: SQLiteCheckpointer, which: dict[str, Any], fence: Fence | None) -> None:
    with saver.lock, saver.conn:
        if fence:
            _check(saver.conn.execute(HELD, asdict(fence)).fetchone())
        for statement in SQLITE:
            saver.conn.execute(statement, which)


async def _postgres(saver: PostgresCheckpointer, which: dict[str, Any], fence: Fence | None) -> None:
    async with saver._cursor() as cursor, cursor.connection.transaction():
        if fence:
            await cursor.execute(HOLD, asdict(fence))
            _check(await cursor.fetchone())
        for statement in POSTGRES:
            await cursor.execute(statement, which)


def _check(held: Any) -> None:
    if not held:
        raise LeaseLost
