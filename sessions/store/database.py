"""The database of the sessions: transactions are plain functions over a connection, SQLite or Postgres."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from graph.db.pool import POOL_TIMEOUT_SECONDS, SET_TIMEOUTS, connect_options, timeout_parameters
from graph.db.retry import with_retry
from graph.settings import Settings
from sessions.store.lockfile import lock_file
from sessions.store.migrations import migrate, refuse_newer

T = TypeVar("T")
MIGRATION_LOCK = 0x41_52_54_31
"""The advisory lock of whoever changes the tables of a Postgres."""
POLL_SECONDS = 0.2


class Database(Protocol):
    @property
    def is_shared(self) -> bool:
        """Whether other processes may serve it as well."""

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """All of it or nothing. `work` must not wait for anything but the connection.

        It must be idempotent: it runs again when the connection is lost, even if that was after its commit.
        """

    async def ping(self) -> None:
        """Raises what the database raises, without a second attempt."""

    async def prepare(self, prepare_others: Callable[[], Awaitable[None]]) -> None:
        """Brings the tables up to date, and runs `others` for those that are not ours; one process at a time.

        Raises SchemaTooNew.
        """


class SQLiteDatabase:
    """A whole transaction is one hop to the thread that owns the file: a hop for each statement costs more than it."""

    is_shared = False

    def __init__(self, engine: Engine, thread: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._thread = thread

    async def transact(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run_transaction, work)

    async def ping(self) -> None:
        await self.transact(_select_one)

    async def prepare(self, prepare_others: Callable[[], Awaitable[None]]) -> None:
        await prepare_others()
        await self.transact(_migrate_sqlite)

    def _run_transaction(self, work: Callable[[Connection], T]) -> T:
        with self._engine.begin() as connection:
            return work(connection)


class PostgresDatabase:
    is_shared = True

    def __init__(self, engine: AsyncEngine, timeouts: Mapping[str, str]) -> None:
        self._engine = engine
        self._timeouts = timeouts

    async def transact(self, work: Callable[[Connection], T]) -> T:
        return await with_retry(self._run_transaction, work)

    async def ping(self) -> None:
        await self._run_transaction(_select_one)

    async def prepare(self, prepare_others: Callable[[], Awaitable[None]]) -> None:
        while True:
            if await self._try_prepare(prepare_others):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _run_transaction(self, work: Callable[[Connection], T]) -> T:
        def work_with_timeouts(connection: Connection) -> T:
            connection.exec_driver_sql(SET_TIMEOUTS, self._timeouts)
            return work(connection)

        async with self._engine.begin() as connection:
            return await connection.run_sync(work_with_timeouts)

    async def _try_prepare(self, prepare_others: Callable[[], Awaitable[None]]) -> bool:
        """False if another process is at it. To wait in the database would block the indexes that are built there."""
        async with self._engine.begin() as connection:
            if not await connection.scalar(text(f"select pg_try_advisory_xact_lock({MIGRATION_LOCK})")):
                return False
            await connection.run_sync(refuse_newer)
            # Also lets go of the snapshot of the last query, which an index that is built concurrently would wait for.
            await connection.exec_driver_sql("set local idle_in_transaction_session_timeout = 0")
            await prepare_others()
            await connection.run_sync(migrate)
            return True


@asynccontextmanager
async def open_database(settings: Settings, thread: ThreadPoolExecutor) -> AsyncIterator[Database]:
    """It has to be prepared before it is used. `thread`: the one that all work on an SQLite file is done in.

    Raises RuntimeError if another process serves the same file; a Postgres need not be there yet.
    """
    url = make_url(settings.db_url)
    opened = _open_sqlite(url, thread) if url.get_backend_name() == "sqlite" else _open_postgres(url, settings)
    async with opened as database:
        yield database


@asynccontextmanager
async def _open_sqlite(url: URL, thread: ThreadPoolExecutor) -> AsyncIterator[Database]:
    path = Path(url.database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url.set(drivername="sqlite"),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False},
        hide_parameters=True,
    )
    event.listen(engine, "connect", _set_pragmas)
    with lock_file(path.with_name(f"{path.name}.lock")):
        try:
            yield SQLiteDatabase(engine, thread)
        finally:
            await asyncio.get_running_loop().run_in_executor(thread, engine.dispose)  # after what it still does


@asynccontextmanager
async def _open_postgres(url: URL, settings: Settings) -> AsyncIterator[Database]:
    engine = create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=settings.db_pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_pre_ping=True,
        connect_args=connect_options(settings.db_url),
        hide_parameters=True,
    )
    try:
        yield PostgresDatabase(engine, timeout_parameters(settings))
    finally:
        await engine.dispose()


def _select_one(connection: Connection) -> None:
    connection.execute(text("select 1"))


def _migrate_sqlite(connection: Connection) -> None:
    """Python's sqlite3 begins no transaction for what changes a table."""
    connection.exec_driver_sql("begin immediate")
    migrate(connection)


def _set_pragmas(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")
