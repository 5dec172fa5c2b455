"""Several replicas share one Postgres: a message may reach any of them, and a session has one writer."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.eventually import DEADLINE_SECONDS, eventually
from tests.support.llm_server import ScriptedLLM, hang_after
from tests.support.llm_server import respond_choice as proxy_chooses
from tests.support.llm_server import respond_text as proxy_says
from tests.support.llm_server import respond_tool_call as proxy_calls
from tests.support.process import ServiceProcess, proxy_settings_for, start_process
from tests.support.scripted import (
    DeferredReply,
    ScriptedModel,
    ScriptLine,
    call_tool,
    choose_agent,
    make_model,
    say_text,
)
from tests.support.service import (
    GatewayClient,
    parse_chunks,
    parse_events,
    settings_for,
    start_service,
    text_chunk,
    tool_call_chunk,
    write_approval_chunk,
)
from tests.support.storage import execute_script

SHORT_LEASE = {"lease_seconds": 1.5}


@asynccontextmanager
async def start_two_services(
    database: str, *lines: ScriptLine, **settings: Any
) -> AsyncIterator[tuple[ScriptedModel, GatewayClient, GatewayClient]]:
    """Run two replicas with one model; yield it and their clients."""
    llm = make_model(*lines)
    chosen = settings_for(database, log_level="CRITICAL", **SHORT_LEASE, **settings)
    async with start_service(llm, chosen) as one, start_service(llm, chosen) as other:
        yield llm, one, other


async def join_stream(client: GatewayClient, session: str = "s-1") -> list[dict[str, Any]]:
    return parse_chunks(await client.http.get(f"/sessions/{session}/stream"))


async def test_conversation_moves_between_replicas(shared: str) -> None:
    lines = (
        choose_agent("coder"),
        call_tool("write_file", path="a.py", content="x"),
        say_text("Written."),
        say_text("Bye."),
    )
    async with start_two_services(shared, *lines) as (_, one, other):
        assert (await one.open_session().send_text("Write a.py"))[-1] == write_approval_chunk("a.py", "x")
        assert await other.open_session().decide("approve") == [tool_call_chunk("write_file", path="a.py", content="x")]
        assert await one.open_session().send_result("ok") == [text_chunk("Written.")]
        assert await other.open_session().send_text("Thanks") == [text_chunk("Bye.")]
        assert await one.open_session().fetch_history() == await other.open_session().fetch_history()


async def test_result_sent_to_both_replicas_is_processed_once(shared: str) -> None:
    held = DeferredReply(say_text("Read."))
    async with start_two_services(shared, choose_agent("ask"), call_tool("read_file", path="a.py"), held) as (
        llm,
        one,
        other,
    ):
        await one.open_session().send_text("Read a.py")
        answers = [asyncio.create_task(each.open_session().send_result("x = 1")) for each in (one, other, one)]
        await held.requested.wait()
        joining = asyncio.create_task(join_stream(other))
        held.release.set()
        assert await asyncio.gather(*answers, joining) == [[text_chunk("Read.")]] * 4
        assert await other.open_session().send_result("x = 1") == [text_chunk("Read.")]
        assert len(llm.prompts) == 3


async def test_first_message_sent_to_both_replicas_starts_one_run(shared: str) -> None:
    async with start_two_services(shared, choose_agent("ask"), say_text("Hi.")) as (llm, one, other):
        for number in range(20):
            llm.lines = iter((choose_agent("ask"), say_text("Hi.")))
            session = f"s-{number}"
            first, second = await asyncio.gather(
                *(each.open_session(session).send_text("Hello", id="m-1") for each in (one, other))
            )
            assert first[-1] == second[-1] == text_chunk("Hi.")
            assert len(await one.open_session(session).fetch_history()) == 2


async def test_messages_to_a_busy_session_are_processed_in_order(shared: str) -> None:
    held = DeferredReply(say_text("One."))
    async with start_two_services(shared, choose_agent("ask"), held, say_text("Two."), say_text("Three.")) as (
        _,
        one,
        other,
    ):
        first = asyncio.create_task(one.open_session().send_text("1"))
        await held.requested.wait()
        second = await send_acknowledged(other, "2")
        third = await send_acknowledged(one, "3")
        held.release.set()
        assert (await first)[-1] == text_chunk("One.")
        assert [(await second)[-1], (await third)[-1]] == [text_chunk("Two."), text_chunk("Three.")]
        said = [message["content"] for message in await one.open_session().fetch_history()]
        assert said == ["1", "One.", "2", "Two.", "3", "Three."]


async def send_acknowledged(client: GatewayClient, content: str, **more: Any) -> "asyncio.Task[list[dict[str, Any]]]":
    """Send a message; return the task of its answer once the message is acknowledged."""
    acknowledged = asyncio.Event()

    async def send_message() -> list[dict[str, Any]]:
        body = {"session_id": "s-1", "message": {"type": "user_message", "content": content}, **more}
        async with client.http.stream("POST", "/agent/message/stream", json=body) as response:
            acknowledged.set()
            await response.aread()
            return parse_chunks(response)

    sending = asyncio.create_task(send_message())
    await acknowledged.wait()
    return sending


@pytest.mark.parametrize("same", [True, False])
async def test_busy_option_rejects_or_interrupts(shared: str, same: bool) -> None:
    held = DeferredReply(say_text("One."))
    async with start_two_services(shared, choose_agent("ask"), held, say_text("Two.")) as (_, one, other):
        there = one if same else other
        first = asyncio.create_task(one.open_session().send_text("1"))
        await held.requested.wait()
        (refused,) = await there.open_session().send_text("No", busy="reject")
        assert refused["metadata"]["code"] == "session_busy"
        second = await send_acknowledged(there, "2", busy="interrupt")
        assert (await first)[-1]["metadata"]["code"] == "cancelled"
        assert (await second)[-1] == text_chunk("Two.")


async def test_session_queue_is_bounded(shared: str) -> None:
    held = DeferredReply(say_text("One."))
    async with start_two_services(shared, choose_agent("ask"), held, say_text("Two."), max_queued_messages=1) as (
        _,
        one,
        other,
    ):
        first = asyncio.create_task(one.open_session().send_text("1"))
        await held.requested.wait()
        second = await send_acknowledged(other, "2")
        (refused,) = await one.open_session().send_text("3")
        assert refused["metadata"]["code"] == "session_busy"
        held.release.set()
        assert [(await first)[-1], (await second)[-1]] == [text_chunk("One."), text_chunk("Two.")]


async def test_message_that_times_out_in_the_queue_is_withdrawn(shared: str) -> None:
    held = DeferredReply(say_text("One."))
    async with start_two_services(shared, choose_agent("ask"), held, queue_timeout_seconds=0.3) as (_, one, other):
        first = asyncio.create_task(one.open_session().send_text("1"))
        await held.requested.wait()
        (refused,) = await other.open_session().send_text("2")
        assert refused["metadata"]["code"] == "session_busy"
        held.release.set()
        assert (await first)[-1] == text_chunk("One.")
        assert len(await other.open_session().fetch_history()) == 2


async def test_a_run_is_cancelled_from_the_other_replica(shared: str) -> None:
    held = DeferredReply(say_text("One."))
    lines = (choose_agent("coder"), held, call_tool("write_file", path="a.py", content="x"), say_text("Fine."))
    async with start_two_services(shared, *lines) as (_, one, other):
        first = asyncio.create_task(one.open_session().send_text("1"))
        await held.requested.wait()
        for _ in range(2):
            await other.http.post("/sessions/s-1/cancel")
        assert (await first)[-1]["metadata"]["code"] == "cancelled"
        await one.open_session().send_text("Write a.py")
        await other.http.post("/sessions/s-1/cancel")
        assert await one.open_session().get("/sessions/{id}/pending-approvals") | {"session_id": ""} == {
            "session_id": "",
            "pending_approvals": [],
            "count": 0,
        }
        assert await other.open_session().send_text("And?") == [text_chunk("Fine.")]


def start_replica(database: str, llm: ScriptedLLM, **settings: str) -> AbstractAsyncContextManager[ServiceProcess]:
    return start_process(database, **proxy_settings_for(llm), **{"lease_seconds": "1", **settings})


async def test_runs_of_a_killed_replica_are_recovered(shared: str) -> None:
    again = (proxy_chooses("ask"), proxy_says("Hi."))
    async with (
        ScriptedLLM(proxy_chooses("ask"), hang_after(), *again, proxy_says("Two.")) as llm,
        start_replica(shared, llm) as one,
        start_replica(shared, llm) as other,
    ):
        asking = asyncio.create_task(one.open_session().send_text("Hello"))
        await llm.wait_for_requests(2)
        waiting = await send_acknowledged(other, "Two?")
        following = asyncio.create_task(other.http.get("/sessions/s-1/stream"))
        await one.kill()
        await asyncio.wait([asking])
        assert asking.exception()
        assert parse_chunks(await following)[-1] == text_chunk("Hi.")
        assert (await waiting)[-1] == text_chunk("Two.")
        said = [message["content"] for message in await other.open_session().fetch_history()]
    assert said == ["Hello", "Hi.", "Two?", "Two."]


async def test_locked_session_does_not_block_others(shared: str) -> None:
    async with start_service(
        make_model(choose_agent("ask"), say_text("1"), choose_agent("ask"), say_text("2")), settings_for(shared)
    ) as client:
        for session in ("s-1", "s-2"):
            await client.open_session(session).send_text("Hello")
    execute_script(shared, "update runs set status = 'running', events = null")
    with psycopg.connect(shared.replace("+asyncpg", "")) as holder:
        holder.execute("select id from sessions where id = 's-1' for update")
        for_ever = settings_for(shared, db_lock_timeout_seconds=1000)
        async with asyncio.timeout(DEADLINE_SECONDS), start_service(make_model(), for_ever) as client:
            assert (await join_stream(client, "s-2"))[-1] == text_chunk("2")
            holder.rollback()


async def test_a_stopped_replica_hands_its_runs_over(shared: str) -> None:
    async with (
        ScriptedLLM(proxy_chooses("ask"), hang_after(), proxy_says("Hi.")) as llm,
        start_replica(shared, llm, shutdown_seconds="0") as one,
        start_replica(shared, llm) as other,
    ):
        asking = asyncio.create_task(one.http.post("/agent/message/stream", json=build_message_body("Hello")))
        await llm.wait_for_requests(2)
        await one.kill(signal.SIGTERM)
        told = await asking
        assert parse_chunks(told)[-1]["metadata"]["code"] == "interrupted"
        seen = [line.removeprefix("id: ") for line in told.text.split("\n") if line.startswith("id: ")][-1]
        rest = await other.http.get("/sessions/s-1/stream", headers={"Last-Event-ID": seen})
        switch, said = [chunk for _, chunk in parse_events(rest.text)][:-1]
        assert (switch["type"], said) == ("agent_switched", text_chunk("Hi."))


async def test_waiting_client_misses_nothing_when_its_replica_stops(shared: str) -> None:
    release = asyncio.Event()
    steps = (proxy_chooses("ask"), proxy_says("One.", release), proxy_says("Two."))
    async with ScriptedLLM(*steps) as llm, start_replica(shared, llm) as one, start_replica(shared, llm) as other:
        first = asyncio.create_task(other.open_session().send_text("1"))
        await llm.wait_for_requests(2)
        waiting = asyncio.create_task(one.http.post("/agent/message/stream", json=build_message_body("2")))
        await wait_for_second_run(other)
        await one.kill(signal.SIGTERM)
        told = await waiting
        assert parse_chunks(told)[-1]["metadata"]["code"] == "interrupted"
        release.set()
        assert (await first)[-1] == text_chunk("One.")
        rest = await other.http.get("/sessions/s-1/stream", headers={"Last-Event-ID": parse_event_ids(told)[-1]})
        assert parse_chunks(rest) == [text_chunk("Two.")]
        assert not {*parse_event_ids(told)} & {*parse_event_ids(rest)}


async def wait_for_second_run(client: GatewayClient) -> None:
    async def has_two_runs() -> bool:
        return len((await client.open_session().get("/sessions/{id}/export"))["runs"]) == 2

    await eventually(has_two_runs, "the second message is accepted")


def parse_event_ids(response: httpx.Response) -> list[str]:
    return [line.removeprefix("id: ") for line in response.text.split("\n") if line.startswith("id: ")]


def build_message_body(content: str) -> dict[str, Any]:
    return {"session_id": "s-1", "message": {"type": "user_message", "content": content}}


async def test_suspended_replica_writes_nothing_after_its_lease_expired(shared: str) -> None:
    read = proxy_calls("read_file", path="a.py")
    async with (
        ScriptedLLM(proxy_chooses("ask"), hang_after(), proxy_chooses("ask"), read, proxy_says("Read.")) as llm,
        start_replica(shared, llm) as sleeper,
        start_replica(shared, llm) as other,
    ):
        asking = asyncio.create_task(sleeper.open_session().send_text("Read a.py"))
        await llm.wait_for_requests(2)
        sleeper.process.send_signal(signal.SIGSTOP)
        asked = await join_stream(other)
        assert asked[-1] == tool_call_chunk("read_file", path="a.py")
        sleeper.process.send_signal(signal.SIGCONT)
        assert (await asking)[-1] == tool_call_chunk("read_file", path="a.py")
        assert await sleeper.open_session().send_result("x = 1") == [text_chunk("Read.")]
        history = await other.open_session().fetch_history()
    assert [each["role"] for each in history] == ["user", "assistant", "tool", "assistant"]
