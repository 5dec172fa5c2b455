"""The database of the sessions: transactions are plain functions over a connection, SQLite or Postgres."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from sessions.owner import locked_file
from sessions.tables import metadata

T = TypeVar("T")


class Database(Protocol):
    @property
    def is_shared(self) -> bool:
        """Whether other processes may serve it as well."""

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """All of it or nothing. `work` must not wait for anything but the connection."""


class SQLiteDatabase:
    """A whole transaction is one hop to the thread that owns the file: a hop for each statement costs more than it."""

    is_shared = False

    def __init__(self, engine: Engine, thread: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._thread = thread

    async def transact(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transacted, work)

    def _transacted(self, work: Callable[[Connection], T]) -> T:
        with self._engine.begin() as connection:
            return work(connection)


class PostgresDatabase:
    is_shared = True

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def transact(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)


@asynccontextmanager
async def open_database(url: str, thread: ThreadPoolExecutor) -> AsyncIterator[Database]:
    """The tables are there when it opens. Raises RuntimeError if another process serves the same database.

    `thread`: the one that all work on an SQLite file is done in.
    """
    parsed = make_url(url)
    opened = _sqlite(parsed, thread) if parsed.get_backend_name() == "sqlite" else _postgres(parsed)
    async with opened as database:
        await database.transact(metadata.create_all)
        yield database


@asynccontextmanager
async def _sqlite(url: URL, thread: ThreadPoolExecutor) -> AsyncIterator[Database]:
    path = Path(url.database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url.set(drivername="sqlite"),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False},
        hide_parameters=True,
    )
    event.listen(engine, "connect", _tune)
    with locked_file(path.with_name(f"{path.name}.lock")):
        try:
            yield SQLiteDatabase(engine, thread)
        finally:
            await asyncio.get_running_loop().run_in_executor(thread, engine.dispose)  # after what it still does


@asynccontextmanager
async def _postgres(url: URL) -> AsyncIterator[Database]:
    engine = create_async_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, hide_parameters=True)
    try:
        yield PostgresDatabase(engine)
    finally:
        await engine.dispose()


def _tune(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")
