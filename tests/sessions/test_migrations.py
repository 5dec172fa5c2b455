"""The tables of earlier versions, brought forward on both databases."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from sessions.store.migrations import SchemaTooNew
from sessions.store.tables import metadata
from tests.support.paths import PROJECT_ROOT
from tests.support.process import start_process
from tests.support.storage import execute_script, open_storage

pytestmark = pytest.mark.anyio
SCHEMA_0001 = (Path(__file__).parent / "schema_0001.sql").read_text()


def compare_schema(connection: Connection) -> list[Any]:
    """Between the tables and what the code believes of them; langgraph's and alembic's own are no matter of ours."""
    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


async def test_empty_database_gets_the_declared_tables(database: str) -> None:
    async with open_storage(database) as store:
        for _ in range(2):
            await store.prepare()
            assert await store.database.transact(compare_schema) == []


async def test_unversioned_database_is_upgraded_and_keeps_its_rows(database: str) -> None:
    execute_script(database, SCHEMA_0001)
    async with open_storage(database) as store:
        await store.prepare()
        assert await store.database.transact(compare_schema) == []
        runs = (
            "select id, idempotency_key, attempts, number, lease_epoch, recovery_attempts, finished_at from runs"
            " order by session_id, number"
        )
        assert await store.fetch_rows(runs) == [
            ("run-b", "key-b", 1, 1, 0, 0, "2025-01-01T00:01:00+00:00"),
            ("run-a", None, 2, 2, 0, 0, None),
            ("run-c", "key-b", 1, 1, 0, 0, "2025-01-01T00:00:00+00:00"),
        ]
        assert await store.fetch_rows("select id, title, lease_owner, lease_epoch from sessions") == [
            ("s-1", "Straße", None, 0)
        ]
        assert await store.fetch_rows("select count(*) from audit_results") == [(1,)]


async def test_missing_tables_are_created(database: str) -> None:
    execute_script(database, SCHEMA_0001 + "drop table grants;\ndrop table audit_results;\n")
    async with open_storage(database) as store:
        await store.prepare()
        assert await store.database.transact(compare_schema) == []


async def test_failed_migration_is_rolled_back(database: str) -> None:
    execute_script(database, SCHEMA_0001 + "create table calls (id integer);\n")
    async with open_storage(database) as store:
        with pytest.raises(Exception, match="calls"):
            await store.prepare()
        execute_script(database, "drop table calls")
        await store.prepare()
        assert await store.database.transact(compare_schema) == []


async def test_newer_schema_is_refused(database: str) -> None:
    async with open_storage(database) as store:
        await store.prepare()
        await store.fetch_rows("update alembic_version set version_num = '9999'")
        with pytest.raises(SchemaTooNew):
            await store.prepare()
    with pytest.raises(RuntimeError) as said:
        async with start_process(database):
            pass
    assert str(said.value) == (
        "The service cannot start: The database was made by a newer version of the service (schema 9999), "
        "which this one does not know; start that version or a later one.\n"
    )


async def test_four_services_start_at_once_on_an_empty_postgres(shared: str) -> None:
    async with open_storage(shared) as a, open_storage(shared) as b:
        async with open_storage(shared) as c, open_storage(shared) as d:
            async with asyncio.timeout(60):
                await asyncio.gather(*(store.prepare() for store in (a, b, c, d)))
        assert await a.database.transact(compare_schema) == []


async def test_four_processes_start_at_once_on_an_empty_postgres(shared: str) -> None:
    async def start_and_read_output() -> str:
        async with start_process(shared) as service:
            (await service.http.get("/ready")).raise_for_status()
            return service.output.decode()

    said = await asyncio.gather(*(start_and_read_output() for _ in range(4)))
    assert not any("Traceback" in each for each in said)


async def test_migrations_do_not_change_logging(tmp_path: Path) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger("agent_runtime").disabled
    async with open_storage(f"sqlite:///{tmp_path}/test.db") as store:
        await store.prepare()
    assert (logging.getLogger().handlers, logging.getLogger("agent_runtime").disabled) == before


def test_alembic_is_not_imported_before_it_is_needed() -> None:
    asked = "import sys, sessions.store.database; sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", asked], cwd=PROJECT_ROOT, check=True)
