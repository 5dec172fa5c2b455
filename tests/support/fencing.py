"""A session under a lease, and the fencing tokens that may and may not write its thread."""

from typing import Any

from langgraph.checkpoint.base import empty_checkpoint

from graph.checkpoint.base import CachingCheckpointer
from graph.db.fencing import FencingToken
from sessions.store import sessions as session_rows
from tests.support.storage import Storage

THREAD_CONFIG: Any = {"configurable": {"thread_id": "s-1", "checkpoint_ns": ""}}
CURRENT_FENCE = FencingToken("s-1", "me", 7)
STALE_FENCES = [FencingToken("s-1", "me", 6), FencingToken("s-1", "another", 7), FencingToken("s-2", "me", 7)]
"""An earlier epoch, another owner, and a session that does not exist."""


async def lease_session(store: Storage) -> None:
    """Create session s-1 in an empty database, under the lease of `CURRENT_FENCE`."""
    await store.prepare()
    await store.database.transact(lambda connection: session_rows.create_session(connection, "s-1"))
    await store.fetch_rows("update sessions set lease_owner = 'me', lease_epoch = 7")


async def put_checkpoint(saver: CachingCheckpointer) -> Any:
    """Write an empty checkpoint and return its config. Raises LeaseLost under a stale fence."""
    return await saver.aput(THREAD_CONFIG, empty_checkpoint(), {}, {})


async def fetch_thread_rows(store: Storage) -> list[Any]:
    """Return the ids of all checkpoints, then the channels of all pending writes."""
    writes = "writes" if not store.database.is_shared else "checkpoint_writes"
    return await store.fetch_rows("select checkpoint_id from checkpoints") + await store.fetch_rows(
        f"select channel from {writes}"
    )
