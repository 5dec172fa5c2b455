"""The tables of earlier versions, migrated on both databases."""

import ast
import asyncio
import inspect
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from sessions.store import tables
from sessions.store.migrations import SchemaTooNew
from sessions.store.tables import metadata
from tests.support.paths import PROJECT_ROOT
from tests.support.process import start_process
from tests.support.storage import execute_script, migrate_to, open_storage, read_tables

pytestmark = pytest.mark.anyio
SCHEMA_0001 = (Path(__file__).parent / "schema_0001.sql").read_text()
ROWS_0002 = """
update sessions set owner = 'replica-1', epoch = 7, lease_until = 1.5, head = 'c-1', unpruned = 3, usage = '{"a": 1}';
update runs set epoch = 6, losses = 1, wanted = 'cancel', usage = '{"a": 2}' where id = 'run-a';
insert into calls (session_id, call_id, tool_name, agent, arguments, rule, status, proposed_at)
    values ('s-1', 'call_1', 'read_file', 'coder', '{}', 'r', 'sent', '2025-01-01T00:02:00+00:00');
"""
ROWS_0003 = """
update sessions set titled_by = 'model';
insert into routings (run_id, number, session_id, text, agent, confidence, method, expected, created_at)
    values ('run-a', 0, 's-1', 'Hi', 'ask', 'high', 'llm', 'coder', '2025-01-01T00:02:00+00:00');
"""
EARLIER_VERSIONS = {"0001": "", "0002": ROWS_0002, "0003": ROWS_0002 + ROWS_0003}
"""Each with the rows of the columns that it added."""
RENAMED_IN_0004 = {
    "runs": {
        "losses": "recovery_attempts",
        "wanted": "stop_requested",
        "key": "idempotency_key",
        "epoch": "lease_epoch",
    },
    "sessions": {
        "unpruned": "runs_since_prune",
        "head": "checkpoint_id",
        "owner": "lease_owner",
        "epoch": "lease_epoch",
        "lease_until": "lease_expires_at",
    },
}
INDEXES = {
    "sqlite": "select name, sql from sqlite_master where sql like 'CREATE%INDEX%' and tbl_name in ('runs', 'sessions')",
    "postgres": "select indexname, indexdef from pg_indexes where tablename in ('runs', 'sessions')",
}


def compare_schema(connection: Connection) -> list[Any]:
    """Compare the tables with what the code believes of them; those of langgraph and alembic are left out."""
    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def create_earlier(database: str, version: str) -> None:
    """Create a database of an earlier version, with rows."""
    execute_script(database, SCHEMA_0001)
    migrate_to(database, version)
    execute_script(database, EARLIER_VERSIONS[version])


def read_under_current_names(database: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of an earlier version with the names that its columns have today."""
    return {
        table: [{RENAMED_IN_0004.get(table, {}).get(name, name): row[name] for name in row} for row in rows]
        for table, rows in read_tables(database).items()
    }


def read_indexes(database: str) -> dict[str, str]:
    return dict(
        map(tuple, execute_script(database, INDEXES["sqlite" if database.startswith("sqlite") else "postgres"]))
    )


def assert_rows_kept(database: str, before: dict[str, list[dict[str, Any]]]) -> None:
    """Check that each row of `before` is there with the same values; columns may have been added."""
    after = read_tables(database)
    for table, rows in before.items():
        kept = [{name: row[name] for name in old} for old, row in zip(rows, after[table], strict=True)]
        assert (table, kept) == (table, rows)


async def test_empty_database_gets_the_declared_tables(database: str) -> None:
    async with open_storage(database) as store:
        for _ in range(2):
            await store.prepare()
            assert await store.database.transact(compare_schema) == []


@pytest.mark.parametrize("version", EARLIER_VERSIONS)
async def test_every_earlier_version_is_migrated_and_keeps_its_rows(database: str, version: str) -> None:
    create_earlier(database, version)
    before = read_under_current_names(database)
    assert all(rows for table, rows in before.items() if table not in ("audit_log", "grants"))
    async with open_storage(database) as store:
        await store.prepare()
        assert await store.database.transact(compare_schema) == []
    assert_rows_kept(database, before)


async def test_indexes_and_constraints_survive_the_renaming_of_columns(database: str) -> None:
    create_earlier(database, "0003")
    before = read_indexes(database)
    async with open_storage(database) as store:
        await store.prepare()
        after = read_indexes(database)
        assert after.keys() == before.keys() >= {"runs_unfinished", "sessions_by_activity", "sessions_by_owner"}
        assert "status" in after["runs_unfinished"].partition(" WHERE ")[2]
        assert "(lease_owner)" in after["sessions_by_owner"]
        for column in ("number = 5", "idempotency_key = 'key-5'"):
            with pytest.raises(IntegrityError):
                await store.fetch_rows(f"update runs set {column} where session_id = 's-1'")
        assert await store.fetch_rows("select number, idempotency_key from runs where id = 'run-a'") == [(2, None)]


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


async def test_failed_renaming_is_rolled_back(database: str) -> None:
    create_earlier(database, "0003")
    before = read_under_current_names(database)
    execute_script(database, "alter table sessions add column lease_expires_at float")
    async with open_storage(database) as store:
        with pytest.raises(Exception, match="lease_expires_at"):
            await store.prepare()
        assert execute_script(database, "select version_num from alembic_version") == [("0003",)]
        execute_script(database, "alter table sessions drop column lease_expires_at")
        await store.prepare()
        assert await store.database.transact(compare_schema) == []
    assert_rows_kept(database, before)


async def test_newer_schema_is_refused(database: str) -> None:
    async with open_storage(database) as store:
        await store.prepare()
        await store.fetch_rows("update alembic_version set version_num = '9999'")
        with pytest.raises(SchemaTooNew):
            await store.prepare()
    with pytest.raises(RuntimeError) as failure:
        async with start_process(database):
            pass
    assert str(failure.value) == (
        "The service cannot start: The database was made by a newer version of the service (schema 9999), "
        "which this one does not know; start that version or a later one.\n"
    )


async def test_four_services_start_at_once_on_an_empty_postgres(shared: str) -> None:
    async with open_storage(shared) as a, open_storage(shared) as b:
        async with open_storage(shared) as c, open_storage(shared) as d:
            async with asyncio.timeout(60):
                await asyncio.gather(*(store.prepare() for store in (a, b, c, d)))
        assert await a.database.transact(compare_schema) == []


async def start_and_read_output(database: str) -> str:
    async with start_process(database) as service:
        (await service.http.get("/ready")).raise_for_status()
        return service.output.decode()


async def test_four_processes_start_at_once_on_an_empty_postgres(shared: str) -> None:
    outputs = await asyncio.gather(*(start_and_read_output(shared) for _ in range(4)))
    assert not any("Traceback" in each for each in outputs)


async def test_two_processes_migrate_an_earlier_version_at_once(shared: str) -> None:
    create_earlier(shared, "0003")
    execute_script(shared, "update runs set status = 'done'")  # no run that the processes would recover
    before = read_under_current_names(shared)
    outputs = await asyncio.gather(*(start_and_read_output(shared) for _ in range(2)))
    assert not any("Traceback" in each for each in outputs)
    assert_rows_kept(shared, before)
    async with open_storage(shared) as store:
        assert await store.database.transact(compare_schema) == []


async def test_migrations_do_not_change_logging(tmp_path: Path) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger("agent_runtime").disabled
    async with open_storage(f"sqlite:///{tmp_path}/test.db") as store:
        await store.prepare()
    assert (logging.getLogger().handlers, logging.getLogger("agent_runtime").disabled) == before


def test_alembic_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, sessions.store.database; sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True)


def test_every_table_and_every_column_is_described() -> None:
    """A comment stands above each column, a docstring below each table."""
    source = inspect.getsource(tables)
    lines = source.splitlines()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    columns = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "Column"]
    assert len(columns) == sum(len(table.columns) for table in metadata.tables.values())
    assert [lines[node.lineno - 1] for node in columns if not lines[node.lineno - 2].startswith("    # ")] == []
    ends = [node.end_lineno or 0 for node in calls if isinstance(node.func, ast.Name) and node.func.id == "Table"]
    assert [lines[end - 1] for end in ends if not lines[end].startswith('"""')] == []
