"""Open the checkpointer that the database URL names."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from graph.checkpoint.base import CachingCheckpointer
from graph.checkpoint.postgres import open_postgres
from graph.checkpoint.sqlite import open_sqlite
from graph.settings import Settings


@asynccontextmanager
async def open_checkpointer(settings: Settings, executor: ThreadPoolExecutor) -> AsyncIterator[CachingCheckpointer]:
    """Open the checkpointer; call `prepare` before its first use.

    `executor` is the one thread that owns an SQLite file. A Postgres may be absent when this is called.
    """
    if settings.db_url.startswith("sqlite"):
        opened = open_sqlite(Path(make_url(settings.db_url).database or ""), executor)
    else:
        opened = open_postgres(settings)
    async with opened as checkpointer:
        yield checkpointer
