"""The checkpointer on an SQLite file."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.sqlite import SqliteSaver

from graph.checkpoint.base import CachingCheckpointer, T, require_lease
from graph.checkpoint.cache import CheckpointCache
from graph.db.fencing import FencingToken
from graph.run_scope import current_scope

SELECT_LEASE = "select 1 from sessions where id = :session_id and lease_owner = :owner and lease_epoch = :epoch"


class ThreadedSqliteSaver(SqliteSaver):
    """A saver whose every call is one hop to the thread that owns the file.

    langgraph's async saver makes one hop for each statement, and the hops cost more than the statements.
    """

    def __init__(self, connection: sqlite3.Connection, executor: ThreadPoolExecutor) -> None:
        super().__init__(connection)
        self._thread = executor

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _submit_write(self, write: Callable[[], T]) -> T:
        fence = current_scope().lease
        return await self._run_in_thread(lambda: self._check_and_write(fence, write))

    def _check_and_write(self, fence: FencingToken | None, write: Callable[[], T]) -> T:
        """Write if the lease is still held, else raise LeaseLost. No other write comes between: there is one thread."""
        if fence:
            require_lease(self.conn.execute(SELECT_LEASE, asdict(fence)).fetchone(), fence)
        return write()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._run_in_thread(partial(self.get_tuple, config))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await self._submit_write(partial(self.put, config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._submit_write(partial(self.put_writes, config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        await self._submit_write(partial(self.delete_thread, thread_id))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await self._run_in_thread(partial(self.get_delta_channel_history, config=config, channels=channels))


class SQLiteCheckpointer(CachingCheckpointer, ThreadedSqliteSaver):
    def __init__(self, connection: sqlite3.Connection, executor: ThreadPoolExecutor) -> None:
        super().__init__(connection, executor)
        self.cache = CheckpointCache()

    async def prepare(self) -> None:
        await self._run_in_thread(self.setup)


@asynccontextmanager
async def open_sqlite(path: Path, executor: ThreadPoolExecutor) -> AsyncIterator[CachingCheckpointer]:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        # NORMAL syncs at checkpoints of the WAL only; 10 s wait for the command line or a backup to release the file
        for pragma in ("synchronous=NORMAL", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")
        yield SQLiteCheckpointer(connection, executor)
    finally:
        await asyncio.get_running_loop().run_in_executor(executor, connection.close)  # after the work that it still has
