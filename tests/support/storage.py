"""The database and the checkpointer of the service, without the service."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from graph.checkpoint.base import CachingCheckpointer
from graph.checkpoint.factory import open_checkpointer
from sessions.store.database import Database, open_database
from tests.support.service import settings_for


class Storage(NamedTuple):
    database: Database
    checkpointer: CachingCheckpointer

    async def prepare(self) -> None:
        await self.database.prepare(self.checkpointer.prepare)

    async def fetch_rows(self, statement: str) -> list[Any]:
        def fetch_all(connection: Any) -> list[Any]:
            result = connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []

        return await self.database.transact(fetch_all)


@asynccontextmanager
async def open_storage(url: str, **settings: Any) -> AsyncIterator[Storage]:
    """Not prepared."""
    chosen = settings_for(url, **settings)
    with ThreadPoolExecutor(1, "sqlite") as thread:
        async with open_database(chosen, thread) as database, open_checkpointer(chosen, thread) as checkpointer:
            yield Storage(database, checkpointer)


def execute_script(database: str, script: str) -> list[Any]:
    """The rows of the last statement; on a connection of its own."""
    url = make_url(database)
    engine = create_engine(url if url.get_backend_name() == "sqlite" else url.set(drivername="postgresql+psycopg"))
    found: list[Any] = []
    with engine.begin() as connection:
        for statement in filter(str.strip, script.split(";\n")):
            result = connection.exec_driver_sql(statement)
            found = list(result) if result.returns_rows else []
    engine.dispose()
    return found
