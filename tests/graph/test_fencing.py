"""A checkpoint is written only under the lease of its run, on both databases."""

import psycopg
import pytest

from graph import wire
from graph.db.fencing import FencingToken, LeaseLost
from graph.db.pool import strip_driver
from graph.execution.outcome import OpenCall, Pause
from graph.permissions.gatekeeper import Gatekeeper
from graph.run_scope import enter_lease
from sessions.request import RunRequest
from sessions.runs.admission import Admission, Withdrawn
from sessions.store import runs as run_rows
from sessions.store import sessions as session_rows
from sessions.store.audit import list_entries
from tests.support.fencing import (
    CURRENT_FENCE,
    STALE_FENCES,
    THREAD_CONFIG,
    fetch_thread_rows,
    lease_session,
    put_checkpoint,
)
from tests.support.storage import Storage, open_storage


async def test_lease_owner_can_write(database: str) -> None:
    async with open_storage(database) as store:
        await lease_session(store)
        with enter_lease(CURRENT_FENCE):
            config = await put_checkpoint(store.checkpointer)
            await store.checkpointer.aput_writes(config, [("messages", "x")], "task")
            assert len(await fetch_thread_rows(store)) == 2
            await store.checkpointer.adelete_thread("s-1")
        assert await fetch_thread_rows(store) == []


@pytest.mark.parametrize("stale", STALE_FENCES)
async def test_stale_fence_writes_nothing(database: str, stale: FencingToken) -> None:
    async with open_storage(database) as store:
        await lease_session(store)
        config = await put_checkpoint(store.checkpointer)
        before = await fetch_thread_rows(store)
        with enter_lease(stale):
            for write in (
                put_checkpoint(store.checkpointer),
                store.checkpointer.aput_writes(config, [("messages", "x")], "task"),
                store.checkpointer.adelete_thread("s-1"),
            ):
                with pytest.raises(LeaseLost):
                    await write
            assert await store.checkpointer.aget_tuple(THREAD_CONFIG)
        assert await fetch_thread_rows(store) == before


async def test_write_fails_while_and_after_another_owner_takes_the_lease(shared: str) -> None:
    async with open_storage(shared, db_lock_timeout_seconds=1) as store:
        await lease_session(store)
        async with await psycopg.AsyncConnection.connect(strip_driver(shared)) as other:
            await other.execute("update sessions set lease_epoch = 8")
            with enter_lease(CURRENT_FENCE), pytest.raises(psycopg.errors.LockNotAvailable):
                await put_checkpoint(store.checkpointer)
            await other.commit()
        with enter_lease(CURRENT_FENCE), pytest.raises(LeaseLost):
            await put_checkpoint(store.checkpointer)
        assert await fetch_thread_rows(store) == []


ADMISSION = Admission(Gatekeeper(), "me", 15, 20, "enqueue")
QUEUED_REQUEST = RunRequest("s-1", wire.UserMessage(type="user_message", content="2"), wire.StreamOptions())


async def queue_request(store: Storage) -> None:
    """Queue a message in a session with an open call."""
    await lease_session(store)
    call = wire.ToolCall(call_id="c0", tool_name="write_file", arguments={"path": "a.py"}, requires_approval=True)
    paused = Pause(resume="r", calls=[OpenCall(call=call, agent="coder", rule="r", reason="", created_at="2026")])
    await store.database.transact(lambda c: session_rows.update_session(c, "s-1", pause=paused.model_dump(mode="json")))
    await store.database.transact(lambda c: run_rows.add_run(c, "run", QUEUED_REQUEST, status="queued"))


async def test_queued_message_is_admitted_once(database: str) -> None:
    async with open_storage(database) as store:
        await queue_request(store)
        for _ in range(2):
            left = await store.database.transact(
                lambda c: ADMISSION.admit_queued(c, CURRENT_FENCE, QUEUED_REQUEST, "run")
            )
            assert left
        assert await store.fetch_rows("select status, lease_epoch from runs") == [("running", 7)]
        assert len(await store.database.transact(lambda c: list_entries(c, "s-1"))) == 1


async def test_withdrawn_message_is_not_admitted(database: str) -> None:
    async with open_storage(database) as store:
        await queue_request(store)
        assert await store.database.transact(lambda c: run_rows.withdraw(c, "run"))
        with pytest.raises(Withdrawn):
            await store.database.transact(lambda c: ADMISSION.admit_queued(c, CURRENT_FENCE, QUEUED_REQUEST, "run"))
        assert await store.database.transact(lambda c: list_entries(c, "s-1")) == []
