"""One process for one database: the runs of a session are ordered within a process."""

import fcntl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

LOCK = 0x41_52_54_31
"""The advisory lock that the owner of a Postgres database holds."""


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Raises RuntimeError if another process holds it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuntimeError(f"Another process serves the database (it holds {path.name}); stop it first.") from None
        yield


@asynccontextmanager
async def locked_server(engine: AsyncEngine) -> AsyncIterator[None]:
    """Raises RuntimeError if another process holds the database. The lock is lost with its connection."""
    async with engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        if not await connection.scalar(text("select pg_try_advisory_lock(:lock)"), {"lock": LOCK}):
            raise RuntimeError(f"Another process serves the database {engine.url.database}; stop it first.")
        yield
