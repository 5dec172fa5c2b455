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
"""The key of the advisory lock under which a process migrates a Postgres: "ART1" in ASCII, an arbitrary value.

It must never change: processes of different versions have to exclude each other.
"""
POLL_SECONDS = 0.2
"""Between two attempts to get that lock: short beside the start of a process. Chosen, not measured."""

SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000")
"""With WAL, readers do not wait for the writer. With NORMAL, a commit survives the death of the process.

Only FULL would sync each commit, so that it survives a power cut as well. Another program, such as a backup, may lock
the file: the service waits 10,000 ms for it, as long as it waits for a row of Postgres by default.
"""


class Database(Protocol):
    """The transactions that the service needs of a database."""

    @property
    def is_shared(self) -> bool:
        """True if other processes may serve the same database."""

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction, all of it or nothing, and return its result.

        `work` must not wait for anything but the connection. It must be idempotent: it runs again when the connection
        is lost, even if that was after its commit.
        """

    async def ping(self) -> None:
        """Execute a statement, without a second attempt. Raises an error of the database."""

    async def prepare(self, prepare_others: Callable[[], Awaitable[None]]) -> None:
        """Migrate the tables, after `prepare_others` has done so with those of the checkpointer; one process at a time.

        Raises SchemaTooNew.
        """


class SQLiteDatabase:
    """An SQLite file. A transaction is one hop to the thread that owns the file: a hop costs more than a statement."""

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
    """A Postgres. Transactions are repeated after transient errors."""

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
        """Migrate, and return True; return False if another process migrates.

        Waiting for the lock inside the database would block the indexes that are built concurrently.
        """
        async with self._engine.begin() as connection:
            if not await connection.scalar(text(f"select pg_try_advisory_xact_lock({MIGRATION_LOCK})")):
                return False
            await connection.run_sync(refuse_newer)
            # This statement also releases the snapshot of the last query, for which a concurrent index would wait.
            await connection.exec_driver_sql("set local idle_in_transaction_session_timeout = 0")
            await prepare_others()
            await connection.run_sync(migrate)
            return True


@asynccontextmanager
async def open_database(settings: Settings, thread: ThreadPoolExecutor) -> AsyncIterator[Database]:
    """Open the database of the settings while the block runs; it has to be prepared before it is used.

    `thread` does all work on an SQLite file. A Postgres need not be reachable yet.
    Raises RuntimeError if another process serves the same file.
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
            # In the thread, so that the work it still has is done before.
            await asyncio.get_running_loop().run_in_executor(thread, engine.dispose)


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
    """Migrate in a transaction that is begun here: Python's sqlite3 begins none for a change of a table."""
    connection.exec_driver_sql("begin immediate")
    migrate(connection)


def _set_pragmas(connection: Any, _: Any) -> None:
    for pragma in SQLITE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
