"""Where threads rest between two requests: SQLite or Postgres, by URL."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.engine import make_url

from graph.recent import Recent

T = TypeVar("T")
POOL = 10
"""Connections to Postgres."""


class Remembering(BaseCheckpointSaver[str]):
    """Before a saver: what ran last is not read again."""

    recent: Recent

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        saved = await super().aput(config, checkpoint, metadata, new_versions)
        self.recent.wrote(saved["configurable"]["thread_id"], checkpoint["id"])
        return saved

    async def adelete_thread(self, thread_id: str) -> None:
        self.recent.forget(thread_id)
        await super().adelete_thread(thread_id)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        if known := self.recent.history(config["configurable"], channels):
            return known
        return await super().aget_delta_channel_history(config=config, channels=channels)


class ThreadedSqliteSaver(SqliteSaver):
    """Each call is one hop to the thread that owns the file; langgraph's async saver makes one for each statement."""

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        super().__init__(connection)
        self._thread = thread

    async def _hop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._hop(partial(self.get_tuple, config))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await self._hop(partial(self.put, config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._hop(partial(self.put_writes, config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        await self._hop(partial(self.delete_thread, thread_id))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await self._hop(partial(self.get_delta_channel_history, config=config, channels=channels))


class SQLiteCheckpointer(Remembering, ThreadedSqliteSaver):
    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        super().__init__(connection, thread)
        self.recent = Recent()


class PostgresCheckpointer(Remembering, AsyncPostgresSaver):
    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[DictRow]]) -> None:
        super().__init__(pool)
        self.recent = Recent()
        self.lock = asyncio.Semaphore(pool.max_size)  # type: ignore[assignment]  # its one lock makes the pool a queue


@asynccontextmanager
async def open_checkpointer(url: str, thread: ThreadPoolExecutor) -> AsyncIterator[Remembering]:
    """`sqlite:///path` or `postgresql://...`; tables are made if they are missing. `thread` owns an SQLite file."""
    if url.startswith("sqlite"):
        path = Path(make_url(url).database or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, check_same_thread=False)
        try:
            for pragma in ("synchronous=NORMAL", "busy_timeout=10000"):
                connection.execute(f"PRAGMA {pragma}")
            saver = SQLiteCheckpointer(connection, thread)
            saver.setup()
            yield saver
        finally:
            await asyncio.get_running_loop().run_in_executor(thread, connection.close)  # after what it still does
    else:
        async with _pool(url) as pool:
            checkpointer = PostgresCheckpointer(pool)
            await checkpointer.setup()
            yield checkpointer


def _pool(url: str) -> AsyncConnectionPool[AsyncConnection[DictRow]]:
    options: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    scheme, _, rest = url.partition("://")
    return AsyncConnectionPool(
        f"{scheme.partition('+')[0]}://{rest}",
        max_size=POOL,
        open=False,
        kwargs=options,
        check=AsyncConnectionPool.check_connection,
    )
