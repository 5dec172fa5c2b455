"""The database and the checkpointer of the service, without the service."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import make_url

from graph.checkpoint.base import CachingCheckpointer
from graph.checkpoint.factory import open_checkpointer
from sessions.store.database import Database, open_database
from sessions.store.migrations import FOLDER
from sessions.store.tables import metadata
from tests.support.service import settings_for


class Storage(NamedTuple):
    database: Database
    checkpointer: CachingCheckpointer

    async def prepare(self) -> None:
        """Create or migrate the tables, as the service does at its start."""
        await self.database.prepare(self.checkpointer.prepare)

    async def fetch_rows(self, statement: str) -> list[Any]:
        """Execute a statement in a transaction of the service; return its rows, if it has any."""

        def fetch_all(connection: Connection) -> list[Any]:
            result = connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []

        return await self.database.transact(fetch_all)


@asynccontextmanager
async def open_storage(url: str, **settings: Any) -> AsyncIterator[Storage]:
    """Open the storage of a service with these settings. Its tables are those that the database has."""
    chosen = settings_for(url, **settings)
    with ThreadPoolExecutor(1, "sqlite") as thread:
        async with open_database(chosen, thread) as database, open_checkpointer(chosen, thread) as checkpointer:
            yield Storage(database, checkpointer)


@contextmanager
def connect(database: str) -> Iterator[Connection]:
    """Open a connection of its own, in a transaction."""
    url = make_url(database)
    engine = create_engine(url if url.get_backend_name() == "sqlite" else url.set(drivername="postgresql+psycopg"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def execute_script(database: str, script: str) -> list[Any]:
    """Execute the statements on a connection of its own; return the rows of the last one."""
    rows: list[Any] = []
    with connect(database) as connection:
        for statement in filter(str.strip, script.split(";\n")):
            result = connection.exec_driver_sql(statement)
            rows = list(result) if result.returns_rows else []
    return rows


def migrate_to(database: str, revision: str) -> None:
    """Bring the tables to an earlier version, as the service of that time did."""
    with connect(database) as connection:
        config = Config()
        config.set_main_option("script_location", str(FOLDER))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def read_tables(database: str) -> dict[str, list[dict[str, Any]]]:
    """Return every row of the service's tables that the database has, whatever columns they have."""
    with connect(database) as connection:
        names = sorted(metadata.tables.keys() & set(inspect(connection).get_table_names()))
        return {
            name: [dict(row) for row in connection.execute(text(f"select * from {name} order by 1, 2")).mappings()]
            for name in names
        }
