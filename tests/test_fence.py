"""A checkpoint is written under the lease of its run, on both databases."""

from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.base import empty_checkpoint

from graph import wire
from graph.checkpoint.base import CachingCheckpointer
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
from tests.storage import Storage, storage

pytestmark = pytest.mark.anyio
CONFIG: Any = {"configurable": {"thread_id": "s-1", "checkpoint_ns": ""}}
HELD = FencingToken("s-1", "me", 7)
STALE = [FencingToken("s-1", "me", 6), FencingToken("s-1", "another", 7), FencingToken("s-2", "me", 7)]


async def leased(store: Storage) -> None:
    await store.prepare()
    await store.database.transact(lambda connection: session_rows.create_session(connection, "s-1"))
    await store.rows("update sessions set owner = 'me', epoch = 7")


async def put(saver: CachingCheckpointer) -> Any:
    return await saver.aput(CONFIG, empty_checkpoint(), {}, {})


async def everything(store: Storage) -> list[Any]:
    writes = "writes" if not store.database.is_shared else "checkpoint_writes"
    return await store.rows("select checkpoint_id from checkpoints") + await store.rows(f"select channel from {writes}")


async def test_who_holds_the_lease_writes(database: str) -> None:
    async with storage(database) as store:
        await leased(store)
        with enter_lease(HELD):
            config = await put(store.checkpointer)
            await store.checkpointer.aput_writes(config, [("messages", "x")], "task")
            assert len(await everything(store)) == 2
            await store.checkpointer.adelete_thread("s-1")
        assert await everything(store) == []


@pytest.mark.parametrize("stale", STALE)
async def test_who_lost_the_lease_writes_nothing(database: str, stale: FencingToken) -> None:
    async with storage(database) as store:
        await leased(store)
        config = await put(store.checkpointer)
        before = await everything(store)
        with enter_lease(stale):
            for write in (
                put(store.checkpointer),
                store.checkpointer.aput_writes(config, [("messages", "x")], "task"),
                store.checkpointer.adelete_thread("s-1"),
            ):
                with pytest.raises(LeaseLost):
                    await write
            assert await store.checkpointer.aget_tuple(CONFIG)
        assert await everything(store) == before


async def test_a_lease_is_not_taken_while_its_holder_writes(shared: str) -> None:
    async with storage(shared, db_lock_timeout_seconds=0.3) as store:
        await leased(store)
        async with await psycopg.AsyncConnection.connect(strip_driver(shared)) as other:
            await other.execute("update sessions set epoch = 8")
            with enter_lease(HELD), pytest.raises(psycopg.errors.LockNotAvailable):
                await put(store.checkpointer)
            await other.commit()
        with enter_lease(HELD), pytest.raises(LeaseLost):
            await put(store.checkpointer)
        assert await everything(store) == []


DOOR = Admission(Gatekeeper(), "me", 15, 20, "enqueue")
WAITING = RunRequest("s-1", wire.UserMessage(type="user_message", content="2"), wire.StreamOptions())


async def waiting(store: Storage) -> None:
    """A message behind a call that is open."""
    await leased(store)
    call = wire.ToolCall(call_id="c0", tool_name="write_file", arguments={"path": "a.py"}, requires_approval=True)
    paused = Pause(resume="r", calls=[OpenCall(call=call, agent="coder", rule="r", reason="", created_at="2026")])
    await store.database.transact(lambda c: session_rows.update_session(c, "s-1", pause=paused.model_dump(mode="json")))
    await store.database.transact(lambda c: run_rows.add_run(c, "run", WAITING, status="queued"))


async def test_a_message_whose_turn_comes_is_taken_once(database: str) -> None:
    async with storage(database) as store:
        await waiting(store)
        for _ in range(2):
            left = await store.database.transact(lambda c: DOOR.admit_queued(c, HELD, WAITING, "run"))
            assert left
        assert await store.rows("select status, epoch from runs") == [("running", 7)]
        assert len(await store.database.transact(lambda c: list_entries(c, "s-1"))) == 1


async def test_a_message_that_was_withdrawn_is_not_taken_when_its_turn_comes(database: str) -> None:
    async with storage(database) as store:
        await waiting(store)
        assert await store.database.transact(lambda c: run_rows.withdraw(c, "run"))
        with pytest.raises(Withdrawn):
            await store.database.transact(lambda c: DOOR.admit_queued(c, HELD, WAITING, "run"))
        assert await store.database.transact(lambda c: list_entries(c, "s-1")) == []
