"""Delete the checkpoints of a thread before one that needs none of them: in one transaction, all or nothing.

The savers cannot do it: SQLite's has no prune, and Postgres' refuses threads with a DeltaChannel.
"""

from functools import partial
from typing import Any

from graph.checkpoint.base import CachingCheckpointer
from graph.checkpoint.postgres import PostgresCheckpointer
from graph.checkpoint.sqlite import SQLiteCheckpointer

OLDER_CHECKPOINTS = "thread_id = :thread and checkpoint_id < :head"
SQLITE_STATEMENTS = (
    f"delete from writes where {OLDER_CHECKPOINTS}",  # noqa: S608
    f"delete from checkpoints where {OLDER_CHECKPOINTS}",  # noqa: S608
    "update checkpoints set parent_checkpoint_id = null where thread_id = :thread and checkpoint_id = :head",
)
POSTGRES_STATEMENTS = (
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


async def delete_older_checkpoints(saver: CachingCheckpointer, thread_id: str, head: str) -> None:
    """Delete the checkpoints before `head`, which must not need any of them. Raises LeaseLost."""
    which = {"thread": thread_id, "head": head}
    match saver:
        case SQLiteCheckpointer():
            await saver._submit_write(partial(_prune_sqlite, saver, which))
        case PostgresCheckpointer():
            async with saver._cursor(pipeline=True) as cursor:
                for statement in POSTGRES_STATEMENTS:
                    await cursor.execute(statement, which)


def _prune_sqlite(saver: SQLiteCheckpointer, parameters: dict[str, Any]) -> None:
    with saver.lock, saver.conn:
        for statement in SQLITE_STATEMENTS:
            saver.conn.execute(statement, parameters)
