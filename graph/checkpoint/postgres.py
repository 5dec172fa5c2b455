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

from graph.checkpoint.base import CachingCheckpointer, require_lease
from graph.checkpoint.cache import CheckpointCache
from graph.db.fencing import FencingToken
from graph.db.pool import POOL_TIMEOUT_SECONDS, SET_TIMEOUTS, connect_options, strip_driver, timeout_parameters
from graph.db.retry import with_retry
from graph.run_scope import current_scope
from graph.settings import Settings

PostgresConnection = AsyncConnection[DictRow]

LOCK_LEASE = (
    "select 1 from sessions where id = %(session_id)s and lease_owner = %(owner)s and lease_epoch = %(epoch)s for share"
)

SET_TIMEOUTS_AND_LOCK_LEASE = f"with lease as ({LOCK_LEASE}) {SET_TIMEOUTS}, (select count(*) from lease) as held"  # noqa: S608


class RetryingPostgresSaver(AsyncPostgresSaver):
    """A saver that retries while the database is away. Each write is one transaction that checks the lease."""

    conn: AsyncConnectionPool[PostgresConnection]

    def __init__(self, pool: AsyncConnectionPool[PostgresConnection], timeouts: Mapping[str, str]) -> None:
        super().__init__(pool)
        self._timeouts = timeouts
        self.lock = asyncio.Semaphore(pool.max_size)  # type: ignore[assignment]  # upstream's one lock would let one connection work

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        """Open a transaction. `pipeline` means a write: all of langgraph's writes set it, none of its reads."""
        async with (
            self.lock,
            self.conn.connection() as connection,
            connection.transaction(),
            connection.cursor(binary=True, row_factory=dict_row) as cursor,
        ):
            fence = current_scope().lease if pipeline else None
            await self._begin_transaction(cursor, fence)
            async with connection.pipeline() if pipeline else nullcontext():
                yield cursor

    async def _begin_transaction(self, cursor: AsyncCursor[DictRow], fence: FencingToken | None) -> None:
        """Set the timeouts. With a fence, lock the session's row until the transaction ends, or raise LeaseLost."""
        if not fence:
            await cursor.execute(SET_TIMEOUTS, self._timeouts)
            return
        await cursor.execute(SET_TIMEOUTS_AND_LOCK_LEASE, {**self._timeouts, **asdict(fence)})
        require_lease((await cursor.fetchone() or {})["held"], fence)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await with_retry(super().aget_tuple, config)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await with_retry(super().aput, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await with_retry(super().aput_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await with_retry(super().adelete_thread, thread_id)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await with_retry(super().aget_delta_channel_history, config=config, channels=channels)


class PostgresCheckpointer(CachingCheckpointer, RetryingPostgresSaver):
    def __init__(self, pool: AsyncConnectionPool[PostgresConnection], timeouts: Mapping[str, str]) -> None:
        super().__init__(pool, timeouts)
        self.cache = CheckpointCache()

    async def prepare(self) -> None:
        """Create the tables without transactions and timeouts, because it builds indexes concurrently."""
        await AsyncPostgresSaver(self.conn).setup()


@asynccontextmanager
async def open_postgres(settings: Settings) -> AsyncIterator[CachingCheckpointer]:
    pool: AsyncConnectionPool[PostgresConnection] = AsyncConnectionPool(
        strip_driver(settings.db_url),
        min_size=0,
        max_size=settings.db_pool_size,
        open=False,
        timeout=POOL_TIMEOUT_SECONDS,
        reconnect_timeout=POOL_TIMEOUT_SECONDS,  # its delays double: better to start again on demand
        kwargs={"autocommit": True, "row_factory": dict_row, **connect_options(settings.db_url)},
        check=AsyncConnectionPool.check_connection,
    )
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # the users of a connection report the same faults
    async with pool:
        yield PostgresCheckpointer(pool, timeout_parameters(settings))
