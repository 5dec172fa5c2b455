"""The checkpointer on Postgres."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from graph.checkpoint.base import Remembering, check_fence
from graph.checkpoint.cache import Recent
from graph.db.fencing import FENCE, Fence
from graph.db.pool import POOL_SECONDS, TIMEOUTS, connect_options, conninfo, timeouts
from graph.db.retry import retried
from graph.settings import Settings

Connection = AsyncConnection[DictRow]

HOLD = "select 1 from sessions where id = %(session_id)s and owner = %(owner)s and epoch = %(epoch)s for share"

TIMEOUTS_AND_HOLD = f"with lease as ({HOLD}) {TIMEOUTS}, (select count(*) from lease) as held"  # noqa: S608


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
        check_fence((await cursor.fetchone() or {})["held"], fence)

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
async def open_postgres(settings: Settings) -> AsyncIterator[Remembering]:
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
