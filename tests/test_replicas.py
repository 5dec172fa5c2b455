"""Several replicas on one Postgres: a message may reach any of them, and a session has one writer."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest

from tests.llm_server import ScriptedLLM, hangs
from tests.llm_server import calls as proxy_calls
from tests.llm_server import chooses as proxy_chooses
from tests.llm_server import says as proxy_says
from tests.process import Process, serving
from tests.scripted import Held, Line, ScriptedModel, calls, chooses, model, says
from tests.service import Client, chunks_of, events_of, service, settings_for, text, tool_call, write_approval
from tests.storage import executed
from tests.test_persistence import proxied

pytestmark = pytest.mark.anyio
QUICK = {"lease_seconds": 1.5}


@asynccontextmanager
async def two(database: str, *lines: Line, **settings: Any) -> AsyncIterator[tuple[ScriptedModel, Client, Client]]:
    """Replicas whose model is one."""
    llm = model(*lines)
    chosen = settings_for(database, log_level="CRITICAL", **QUICK, **settings)
    async with service(llm, chosen) as one, service(llm, chosen) as other:
        yield llm, one, other


async def joined(client: Client, session: str = "s-1") -> list[dict[str, Any]]:
    return chunks_of(await client.http.get(f"/sessions/{session}/stream"))


async def test_a_conversation_goes_from_one_to_the_other_and_back(shared: str) -> None:
    lines = (chooses("coder"), calls("write_file", path="a.py", content="x"), says("Written."), says("Bye."))
    async with two(shared, *lines) as (_, one, other):
        assert (await one.session().user("Write a.py"))[-1] == write_approval("a.py", "x")
        assert await other.session().decide("approve") == [tool_call("write_file", path="a.py", content="x")]
        assert await one.session().result("ok") == [text("Written.")]
        assert await other.session().user("Thanks") == [text("Bye.")]
        assert await one.session().history() == await other.session().history()


async def test_the_same_result_on_both_runs_the_model_once(shared: str) -> None:
    held = Held(says("Read."))
    async with two(shared, chooses("ask"), calls("read_file", path="a.py"), held) as (llm, one, other):
        await one.session().user("Read a.py")
        answers = [asyncio.create_task(each.session().result("x = 1")) for each in (one, other, one)]
        await held.asked.wait()
        joining = asyncio.create_task(joined(other))
        held.release.set()
        assert await asyncio.gather(*answers, joining) == [[text("Read.")]] * 4
        assert await other.session().result("x = 1") == [text("Read.")]
        assert len(llm.heard) == 3


async def test_a_first_message_sent_to_both_makes_one_session_and_one_run(shared: str) -> None:
    async with two(shared, chooses("ask"), says("Hi.")) as (llm, one, other):
        for number in range(20):
            llm.lines = iter((chooses("ask"), says("Hi.")))
            session = f"s-{number}"
            first, second = await asyncio.gather(
                *(each.session(session).user("Hello", id="m-1") for each in (one, other))
            )
            assert first[-1] == second[-1] == text("Hi.")
            assert len(await one.session(session).history()) == 2


async def test_messages_to_a_busy_session_come_in_their_order(shared: str) -> None:
    held = Held(says("One."))
    async with two(shared, chooses("ask"), held, says("Two."), says("Three.")) as (_, one, other):
        first = asyncio.create_task(one.session().user("1"))
        await held.asked.wait()
        second = await begun(other, "2")
        third = await begun(one, "3")
        held.release.set()
        assert (await first)[-1] == text("One.")
        assert [(await second)[-1], (await third)[-1]] == [text("Two."), text("Three.")]
        said = [message["content"] for message in await one.session().history()]
        assert said == ["1", "One.", "2", "Two.", "3", "Three."]


async def begun(client: Client, content: str, **more: Any) -> "asyncio.Task[list[dict[str, Any]]]":
    """The answer to a message that was acknowledged."""
    acknowledged = asyncio.Event()

    async def send() -> list[dict[str, Any]]:
        body = {"session_id": "s-1", "message": {"type": "user_message", "content": content}, **more}
        async with client.http.stream("POST", "/agent/message/stream", json=body) as response:
            acknowledged.set()
            await response.aread()
            return chunks_of(response)

    sending = asyncio.create_task(send())
    await acknowledged.wait()
    return sending


@pytest.mark.parametrize("same", [True, False])
async def test_a_client_chooses_what_its_message_does_to_a_busy_session(shared: str, same: bool) -> None:
    held = Held(says("One."))
    async with two(shared, chooses("ask"), held, says("Two.")) as (_, one, other):
        there = one if same else other
        first = asyncio.create_task(one.session().user("1"))
        await held.asked.wait()
        (refused,) = await there.session().user("No", busy="reject")
        assert refused["metadata"]["code"] == "session_busy"
        second = await begun(there, "2", busy="interrupt")
        assert (await first)[-1]["metadata"]["code"] == "cancelled"
        assert (await second)[-1] == text("Two.")


async def test_only_so_many_messages_wait(shared: str) -> None:
    held = Held(says("One."))
    async with two(shared, chooses("ask"), held, says("Two."), session_queue=1) as (_, one, other):
        first = asyncio.create_task(one.session().user("1"))
        await held.asked.wait()
        second = await begun(other, "2")
        (refused,) = await one.session().user("3")
        assert refused["metadata"]["code"] == "session_busy"
        held.release.set()
        assert [(await first)[-1], (await second)[-1]] == [text("One."), text("Two.")]


async def test_a_message_that_waits_too_long_is_not_taken_later(shared: str) -> None:
    held = Held(says("One."))
    async with two(shared, chooses("ask"), held, session_busy_seconds=0.3) as (_, one, other):
        first = asyncio.create_task(one.session().user("1"))
        await held.asked.wait()
        (refused,) = await other.session().user("2")
        assert refused["metadata"]["code"] == "session_busy"
        held.release.set()
        assert (await first)[-1] == text("One.")
        assert len(await other.session().history()) == 2


async def test_a_run_is_cancelled_from_the_other_replica(shared: str) -> None:
    held = Held(says("One."))
    lines = (chooses("coder"), held, calls("write_file", path="a.py", content="x"), says("Fine."))
    async with two(shared, *lines) as (_, one, other):
        first = asyncio.create_task(one.session().user("1"))
        await held.asked.wait()
        for _ in range(2):
            await other.http.post("/sessions/s-1/cancel")
        assert (await first)[-1]["metadata"]["code"] == "cancelled"
        await one.session().user("Write a.py")
        await other.http.post("/sessions/s-1/cancel")
        assert await one.session().get("/sessions/{id}/pending-approvals") | {"session_id": ""} == {
            "session_id": "",
            "pending_approvals": [],
            "count": 0,
        }
        assert await other.session().user("And?") == [text("Fine.")]


def replica(database: str, llm: ScriptedLLM, **settings: str) -> AbstractAsyncContextManager[Process]:
    return serving(database, **proxied(llm), **{"lease_seconds": "1", **settings})


async def test_a_killed_replica_is_taken_over(shared: str) -> None:
    again = (proxy_chooses("ask"), proxy_says("Hi."))
    async with (
        ScriptedLLM(proxy_chooses("ask"), hangs(), *again, proxy_says("Two.")) as llm,
        replica(shared, llm) as one,
        replica(shared, llm) as other,
    ):
        asking = asyncio.create_task(one.session().user("Hello"))
        await llm.received(2)
        waiting = await begun(other, "Two?")
        following = asyncio.create_task(other.http.get("/sessions/s-1/stream"))
        await one.kill()
        await asyncio.wait([asking])
        assert asking.exception()
        assert chunks_of(await following)[-1] == text("Hi.")
        assert (await waiting)[-1] == text("Two.")
        said = [message["content"] for message in await other.session().history()]
    assert said == ["Hello", "Hi.", "Two?", "Two."]


async def test_a_session_that_somebody_locks_holds_up_no_other(shared: str) -> None:
    async with service(model(chooses("ask"), says("1"), chooses("ask"), says("2")), settings_for(shared)) as client:
        for session in ("s-1", "s-2"):
            await client.session(session).user("Hello")
    executed(shared, "update runs set status = 'running', events = null")
    with psycopg.connect(shared.replace("+asyncpg", "")) as holder:
        holder.execute("select id from sessions where id = 's-1' for update")
        async with asyncio.timeout(8), service(model(), settings_for(shared)) as client:
            assert (await joined(client, "s-2"))[-1] == text("2")
            holder.rollback()


async def test_a_stopped_replica_hands_its_runs_over(shared: str) -> None:
    async with (
        ScriptedLLM(proxy_chooses("ask"), hangs(), proxy_says("Hi.")) as llm,
        replica(shared, llm, shutdown_seconds="0") as one,
        replica(shared, llm) as other,
    ):
        asking = asyncio.create_task(one.http.post("/agent/message/stream", json=message("Hello")))
        await llm.received(2)
        await one.kill(signal.SIGTERM)
        told = await asking
        assert chunks_of(told)[-1]["metadata"]["code"] == "interrupted"
        seen = [line.removeprefix("id: ") for line in told.text.split("\n") if line.startswith("id: ")][-1]
        rest = await other.http.get("/sessions/s-1/stream", headers={"Last-Event-ID": seen})
        switch, said = [chunk for _, chunk in events_of(rest.text)][:-1]
        assert (switch["type"], said) == ("agent_switched", text("Hi."))


async def test_who_waits_at_a_replica_that_stops_misses_nothing_at_another(shared: str) -> None:
    release = asyncio.Event()
    steps = (proxy_chooses("ask"), proxy_says("One.", release), proxy_says("Two."))
    async with ScriptedLLM(*steps) as llm, replica(shared, llm) as one, replica(shared, llm) as other:
        first = asyncio.create_task(other.session().user("1"))
        await llm.received(2)
        waiting = asyncio.create_task(one.http.post("/agent/message/stream", json=message("2")))
        await until_one_waits(other)
        await one.kill(signal.SIGTERM)
        told = await waiting
        assert chunks_of(told)[-1]["metadata"]["code"] == "interrupted"
        release.set()
        assert (await first)[-1] == text("One.")
        rest = await other.http.get("/sessions/s-1/stream", headers={"Last-Event-ID": ids(told)[-1]})
        assert chunks_of(rest) == [text("Two.")]
        assert not {*ids(told)} & {*ids(rest)}


async def until_one_waits(client: Client) -> None:
    async with asyncio.timeout(10):
        while True:
            if len((await client.session().get("/sessions/{id}/export"))["runs"]) == 2:
                return
            await asyncio.sleep(0.02)


def ids(response: httpx.Response) -> list[str]:
    return [line.removeprefix("id: ") for line in response.text.split("\n") if line.startswith("id: ")]


def message(content: str) -> dict[str, Any]:
    return {"session_id": "s-1", "message": {"type": "user_message", "content": content}}


async def test_a_replica_that_slept_longer_than_its_lease_writes_nothing(shared: str) -> None:
    read = proxy_calls("read_file", path="a.py")
    async with (
        ScriptedLLM(proxy_chooses("ask"), hangs(), proxy_chooses("ask"), read, proxy_says("Read.")) as llm,
        replica(shared, llm) as sleeper,
        replica(shared, llm) as other,
    ):
        asking = asyncio.create_task(sleeper.session().user("Read a.py"))
        await llm.received(2)
        sleeper.process.send_signal(signal.SIGSTOP)
        asked = await joined(other)
        assert asked[-1] == tool_call("read_file", path="a.py")
        sleeper.process.send_signal(signal.SIGCONT)
        assert (await asking)[-1] == tool_call("read_file", path="a.py")
        assert await sleeper.session().result("x = 1") == [text("Read.")]
        history = await other.session().history()
    assert [each["role"] for each in history] == ["user", "assistant", "tool", "assistant"]
