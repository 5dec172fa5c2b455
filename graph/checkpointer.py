"""Where threads rest between two requests: SQLite or Postgres, by URL."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
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
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.engine import make_url

from graph.fence import FENCE, Fence, LeaseLost
from graph.outage import retried
from graph.postgres import POOL_SECONDS, TIMEOUTS, connect_options, conninfo, timeouts
from graph.recent import Recent
from graph.settings import Settings

T = TypeVar("T")
Connection = AsyncConnection[DictRow]
HELD = "select 1 from sessions where id = :session_id and owner = :owner and epoch = :epoch"
HOLD = "select 1 from sessions where id = %(session_id)s and owner = %(owner)s and epoch = %(epoch)s for share"
TIMEOUTS_AND_HOLD = f"with lease as ({HOLD}) {TIMEOUTS}, (select count(*) from lease) as held"  # noqa: S608


class Remembering(BaseCheckpointSaver[str]):
    """Before a saver: what ran last is not read again."""

    recent: Recent

    async def prepare(self) -> None:
        """Makes the tables that are missing; one process at a time."""
        raise NotImplementedError

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

    async def _write(self, write: Callable[[], T]) -> T:
        fence = FENCE.get()
        return await self._hop(lambda: self._fenced(fence, write))

    def _fenced(self, fence: Fence | None, write: Callable[[], T]) -> T:
        """Nobody comes between: all work on the file is done in this thread."""
        if fence:
            _check(self.conn.execute(HELD, asdict(fence)).fetchone(), fence)
        return write()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._hop(partial(self.get_tuple, config))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await self._write(partial(self.put, config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._write(partial(self.put_writes, config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        await self._write(partial(self.delete_thread, thread_id))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await self._hop(partial(self.get_delta_channel_history, config=config, channels=channels))


class SQLiteCheckpointer(Remembering, ThreadedSqliteSaver):
    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        super().__init__(connection, thread)
        self.recent = Recent()

    async def prepare(self) -> None:
        await self._hop(self.setup)


class PersistentPostgresSaver(AsyncPostgresSaver):
    """Survives a database that comes and goes; each write is a transaction, refused for a stale fence."""

    conn: AsyncConnectionPool[Connection]

    def __init__(self, pool: AsyncConnectionPool[Connection], timeouts: Mapping[str, str]) -> None:
        super().__init__(pool)
        self._timeouts = timeouts
        self.lock = asyncio.Semaphore(pool.max_size)  # type: ignore[assignment]  # its one lock makes the pool a queue

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        """`pipeline`: for writing; all of langgraph's writes say so, none of its reads."""
        async with (
            self.lock,
            self.conn.connection() as connection,
            connection.transaction(),
            connection.cursor(binary=True, row_factory=dict_row) as cursor,
        ):
            fence = FENCE.get() if pipeline else None
            await self._begin(cursor, fence)
            async with connection.pipeline() if pipeline else nullcontext():
                yield cursor

    async def _begin(self, cursor: AsyncCursor[DictRow], fence: Fence | None) -> None:
        """Sets the timeouts; holds the session's row until the end of the transaction, or raises LeaseLost."""
        if not fence:
            await cursor.execute(TIMEOUTS, self._timeouts)
            return
        await cursor.execute(TIMEOUTS_AND_HOLD, {**self._timeouts, **asdict(fence)})
        _check((await cursor.fetchone() or {})["held"], fence)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await retried(super().aget_tuple, config)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await retried(super().aput, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await retried(super().aput_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await retried(super().adelete_thread, thread_id)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await retried(super().aget_delta_channel_history, config=config, channels=channels)


class PostgresCheckpointer(Remembering, PersistentPostgresSaver):
    def __init__(self, pool: AsyncConnectionPool[Connection], timeouts: Mapping[str, str]) -> None:
        super().__init__(pool, timeouts)
        self.recent = Recent()

    async def prepare(self) -> None:
        """Without transactions and timeouts: it builds indexes concurrently."""
        await AsyncPostgresSaver(self.conn).setup()


@asynccontextmanager
async def open_checkpointer(settings: Settings, thread: ThreadPoolExecutor) -> AsyncIterator[Remembering]:
    """It has to be prepared before it is used. `thread` owns an SQLite file; a Postgres need not be there yet."""
    if settings.db_url.startswith("sqlite"):
        opened = _sqlite(Path(make_url(settings.db_url).database or ""), thread)
    else:
        opened = _postgres(settings)
    async with opened as checkpointer:
        yield checkpointer


@asynccontextmanager
async def _sqlite(path: Path, thread: ThreadPoolExecutor) -> AsyncIterator[Remembering]:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        for pragma in ("synchronous=NORMAL", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")
        yield SQLiteCheckpointer(connection, thread)
    finally:
        await asyncio.get_running_loop().run_in_executor(thread, connection.close)  # after what it still does


@asynccontextmanager
async def _postgres(settings: Settings) -> AsyncIterator[Remembering]:
    pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
        conninfo(settings.db_url),
        min_size=0,
        max_size=settings.db_pool_size,
        open=False,
        timeout=POOL_SECONDS,
        reconnect_timeout=POOL_SECONDS,  # given up soon, and begun anew when somebody asks: its delays double
        kwargs={"autocommit": True, "row_factory": dict_row, **connect_options(settings.db_url)},
        check=AsyncConnectionPool.check_connection,
    )
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # what it warns of, whoever needs a connection tells
    async with pool:
        yield PostgresCheckpointer(pool, timeouts(settings))


def _check(held: Any, fence: Fence) -> None:
    if not held:
        raise LeaseLost(fence.session_id)
