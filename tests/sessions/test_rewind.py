"""The last turn can be undone, and a conversation can be copied as it is or as it was."""

import asyncio
from typing import Any

import psycopg
import pytest
from langchain_core.messages import AIMessage, HumanMessage

from graph.execution import history
from graph.execution.history import ConversationSnapshot
from tests.support.conversations import check_conversation, check_model_input
from tests.support.eventually import eventually
from tests.support.rewind import undo_last_turn
from tests.support.scripted import DeferredReply, call_tool, call_tools, choose_agent, make_model, say_text
from tests.support.service import (
    GatewayClient,
    SessionClient,
    agent_switch_chunk,
    settings_for,
    start_service,
    text_chunk,
    tool_call_chunk,
    write_approval_chunk,
)
from tests.support.storage import execute_script

WRITE_CALL = call_tool("write_file", path="a.py", content="x")
READ_CALL = call_tool("read_file", path="a.py")


async def test_undo_restores_the_state_before_the_last_message(database: str) -> None:
    llm = make_model(choose_agent("ask"), say_text("One."), say_text("Two."), say_text("Three."), say_text("Four."))
    async with start_service(llm, settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("First")
        await session.send_text("Second")
        before = await session.get("/agents/{id}/current")
        assert await undo_last_turn(session) == {
            "session_id": "s-1",
            "undone": "Second",
            "message_count": 2,
            "current_agent": "ask",
        }
        assert [message["content"] for message in await session.fetch_history()] == ["First", "One."]
        assert await session.get("/agents/{id}/current") == before
        shown = await session.get("/sessions/{id}")
        assert (shown["title"], shown["message_count"]) == ("First", 2)
        assert await session.send_text("Third") == [text_chunk("Three.")]
    async with start_service(llm, settings_for(database)) as client:
        await undo_last_turn(client.open_session())
        assert await client.open_session().send_text("Fourth") == [text_chunk("Four.")]
        assert [m["content"] for m in await client.open_session().fetch_history()] == [
            "First",
            "One.",
            "Fourth",
            "Four.",
        ]
    assert [message.content for message in llm.prompts[-1][1:]] == ["First", "One.", "Fourth"]


async def test_undo_can_be_repeated_to_the_first_message(database: str) -> None:
    llm = make_model(choose_agent("ask"), say_text("One."), say_text("Two."), choose_agent("coder"), say_text("Three."))
    async with start_service(llm, settings_for(database)) as client:
        session = client.open_session()
        missing = await client.http.post("/sessions/s-1/undo")
        await session.send_text("First")
        await session.switch("coder", content="Second")
        assert (await undo_last_turn(session))["current_agent"] == "ask"
        assert (await session.get("/agents/{id}/current"))["switch_count"] == 1
        last = await undo_last_turn(session)
        nothing = await client.http.post("/sessions/s-1/undo")
        assert await session.get("/agents/{id}/current") == {
            "session_id": "s-1",
            "current_agent": "orchestrator",
            "agent_history": [],
            "switch_count": 0,
        }
        assert await session.send_text("Third") == [agent_switch_chunk("orchestrator", "coder"), text_chunk("Three.")]
    assert missing.status_code == 404
    assert (last["undone"], last["message_count"], last["current_agent"]) == ("First", 0, "orchestrator")
    assert (nothing.status_code, nothing.json()) == (
        409,
        {"error": "The session has no message of the user to undo.", "code": "nothing_to_undo"},
    )


async def test_undo_closes_open_calls_and_frees_their_ids(database: str) -> None:
    llm = make_model(choose_agent("coder"), say_text("Hi."), WRITE_CALL, WRITE_CALL, say_text("Written."))
    async with start_service(llm, settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("Hello")
        await session.send_text("Write a.py", id="m-1")
        await undo_last_turn(session)
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
        assert (await session.get("/sessions/{id}/calls"))["calls"] == []
        (late,) = await session.decide("approve")
        (closed,) = (await session.get("/sessions/{id}/audit"))["entries"]
        assert await session.send_text("Write a.py", id="m-1") == [write_approval_chunk("a.py", "x")]
        assert await session.decide("approve") == [tool_call_chunk("write_file", path="a.py", content="x")]
        assert await session.send_result("done") == [text_chunk("Written.")]
        (call,) = (await session.get("/sessions/{id}/calls"))["calls"]
        assert check_conversation(await session.fetch_history()) == []
        assert (await session.get("/sessions/{id}/audit"))["count"] == 2
    assert late["metadata"]["code"] == "call_not_open"
    assert (closed["call_id"], closed["decision"], closed["decided_by"], closed["feedback"]) == (
        "call_1",
        "cancel",
        "system",
        "the user took the message back",
    )
    assert (call["status"], call["decision"], call["decided_by"]) == ("answered", "approve", "hitl_decision")


async def test_result_of_an_undone_turn_can_be_sent_again(database: str) -> None:
    llm = make_model(choose_agent("ask"), READ_CALL, say_text("One."), READ_CALL, say_text("Two."))
    async with start_service(llm, settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("Read a.py")
        await session.send_result("x = 1")
        await undo_last_turn(session)
        assert (await session.switch("ask", content="Read a.py"))[-1] == tool_call_chunk("read_file", path="a.py")
        assert await session.send_result("x = 1") == [text_chunk("Two.")]
        assert await session.send_result("x = 1") == [text_chunk("Two.")]


async def test_message_cancelled_early_can_be_undone(database: str) -> None:
    held = DeferredReply(choose_agent("coder"))
    llm = make_model(choose_agent("ask"), say_text("One."), held)
    async with start_service(llm, settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("First")
        await session.switch("orchestrator")
        asking = asyncio.create_task(session.send_text("Second"))
        await held.requested.wait()
        await client.http.post("/sessions/s-1/cancel")
        await asking
        assert [m["content"] for m in await session.fetch_history()] == ["First", "One.", "Second"]
        assert (await undo_last_turn(session))["current_agent"] == "orchestrator"
        assert (await undo_last_turn(session))["undone"] == "First"


@pytest.mark.parametrize("scope", ["turn", "session"])
async def test_undo_ends_the_grants_of_its_turn(database: str, scope: str) -> None:
    other = call_tool("write_file", call_id="c2", path="b.py", content="x")
    llm = make_model(choose_agent("coder"), WRITE_CALL, say_text("Written."), other, say_text("Written."))
    async with start_service(llm, settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        await session.decide("approve", remember={"scope": "session"})
        await session.send_result("ok")
        await session.send_text("Write b.py")
        await session.decide("approve", "c2", remember={"scope": scope})
        assert [each["pattern"] for each in (await session.get("/sessions/{id}/grants"))["grants"]] == ["a.py", "b.py"]
        await undo_last_turn(session)
        assert [each["pattern"] for each in (await session.get("/sessions/{id}/grants"))["grants"]] == ["a.py"]


async def test_undo_waits_for_the_running_run(database: str) -> None:
    held = DeferredReply(say_text("Two."))
    async with start_service(make_model(choose_agent("ask"), say_text("One."), held), settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("First")
        asking = asyncio.create_task(session.send_text("Second"))
        await held.requested.wait()
        undoing = asyncio.create_task(undo_last_turn(session))
        await session.get("/sessions/{id}")
        assert not undoing.done()
        held.release.set()
        assert await asking == [text_chunk("Two.")]
        assert (await undoing)["undone"] == "Second"


async def test_message_sent_during_an_undo_keeps_its_id(shared: str) -> None:
    held = DeferredReply(say_text("Two."))
    async with start_service(make_model(choose_agent("ask"), say_text("One."), held), settings_for(shared)) as client:
        session = client.open_session()
        await session.send_text("First")
        with psycopg.connect(shared.replace("+asyncpg", "")) as holder:
            holder.execute("lock table checkpoints")
            undoing = asyncio.create_task(undo_last_turn(session))
            await wait_for_row(shared, "select pid from pg_locks where not granted")
            asking = asyncio.create_task(session.switch("ask", content="Second", id="m-2"))
            await wait_for_row(shared, "select id from runs where status = 'queued'")
        assert (await undoing)["undone"] == "First"
        await held.requested.wait()
        again = asyncio.create_task(session.switch("ask", content="Second", id="m-2"))
        await session.get("/sessions/{id}")
        held.release.set()
        assert (await asking)[-1] == (await again)[-1] == text_chunk("Two.")
        assert [each["content"] for each in await session.fetch_history()] == ["Second", "Two."]


async def wait_for_row(database: str, statement: str) -> None:
    await eventually(lambda: execute_script(database, statement), f"a row is found by: {statement}")


async def fork_session(client: GatewayClient, **body: Any) -> SessionClient:
    answer = (await client.http.post("/sessions/s-1/fork", json=body)).raise_for_status().json()
    shown = (await client.http.get(f"/sessions/{answer['session_id']}")).json()
    assert answer == {
        **{name: shown[name] for name in ("session_id", "id", "message_count", "current_agent", "created_at", "title")},
        "forked_from": "s-1",
    }
    return client.open_session(answer["session_id"])


async def test_fork_is_independent_of_its_source(database: str) -> None:
    llm = make_model(choose_agent("ask"), say_text("One."), say_text("Two."), say_text("Three."), say_text("Four."))
    async with start_service(llm, settings_for(database)) as client:
        source = client.open_session()
        await source.send_text("First")
        await source.send_text("Second")
        copy = await fork_session(client)
        assert await copy.fetch_history() == await source.fetch_history()
        assert (await copy.get("/agents/{id}/current"))["agent_history"] == (await source.get("/agents/{id}/current"))[
            "agent_history"
        ]
        assert await copy.send_text("Third") == [text_chunk("Three.")]
        assert await source.send_text("Fourth") == [text_chunk("Four.")]
        assert [m["content"] for m in (await copy.fetch_history())[4:]] == ["Third", "Three."]
        assert [m["content"] for m in (await source.fetch_history())[4:]] == ["Fourth", "Four."]
        assert [s["title"] for s in (await source.get("/sessions"))["sessions"]] == ["First", "First"]
        assert (await undo_last_turn(copy))["undone"] == "Third"
        assert (await undo_last_turn(copy))["undone"] == "Second"


async def test_fork_can_start_at_an_earlier_turn(database: str) -> None:
    llm = make_model(choose_agent("ask"), say_text("One."), READ_CALL, say_text("Two."), say_text("Three."))
    async with start_service(llm, settings_for(database)) as client:
        source = client.open_session()
        await source.send_text("First")
        await source.switch("coder", content="Second")
        await source.send_text("Third")
        histories = [await (await fork_session(client, turn=turn)).fetch_history() for turn in (1, 2, 3)]
        agents = [s["current_agent"] for s in (await source.get("/sessions"))["sessions"]]
        bad = [await client.http.post("/sessions/s-1/fork", json={"turn": turn}) for turn in (4, 0, "x")]
        now = await client.http.post("/sessions/s-1/fork")
        missing = await client.http.post("/sessions/s-2/fork", json={})
    assert [[m["role"] for m in history] for history in histories] == [
        ["user", "assistant"],
        ["user", "assistant", "user", "assistant", "tool"],
        ["user", "assistant", "user", "assistant", "tool", "user", "assistant"],
    ]
    assert agents == ["coder", "coder", "ask", "coder"]
    assert [response.status_code for response in bad] == [422, 422, 422]
    assert bad[0].json() == {
        "detail": "The session has 3 turns; name one of them, from 1.",
        "code": "no_such_turn",
    }
    assert (now.status_code, now.json()["message_count"], missing.status_code) == (200, 7, 404)


async def test_open_calls_stay_with_the_source_of_a_fork(database: str) -> None:
    both = call_tools(
        ("write_file", "call_1", '{"path": "a", "content": ""}'), ("read_file", "call_2", '{"path": "b"}')
    )
    llm = make_model(choose_agent("coder"), both, say_text("Copied."), say_text("Done."))
    async with start_service(llm, settings_for(database)) as client:
        source = client.open_session(parallel_tools=True)
        await source.send_text("Both")
        await source.send_result("b", "call_2")
        copy = await fork_session(client)
        assert check_conversation(await copy.fetch_history()) == []
        assert (await copy.fetch_history())[-1]["content"] == (
            "cancelled: this is a copy; the call belongs to the session it was made from"
        )
        for path in ("pending-approvals", "grants", "audit"):
            assert (await copy.get(f"/sessions/{{id}}/{path}"))["count"] == 0
        calls_of_copy = (await copy.get("/sessions/{id}/calls"))["calls"]
        (late,) = await copy.decide("approve")
        assert await copy.send_text("Go on") == [text_chunk("Copied.")]
        assert [chunk["call_id"] for chunk in await source.decide("approve")] == ["call_1"]
        assert await source.send_result("ok", "call_1") == [text_chunk("Done.")]
    assert [(call["call_id"], call["status"]) for call in calls_of_copy] == [
        ("call_1", "cancelled"),
        ("call_2", "answered"),
    ]
    assert late["metadata"]["code"] == "call_not_open"
    for heard in llm.prompts[1:]:
        check_model_input(heard)


async def test_fork_of_a_running_session_starts_before_the_run(database: str) -> None:
    held = DeferredReply(say_text("Two."))
    async with start_service(
        make_model(choose_agent("ask"), say_text("One."), held, say_text("Copied.")), settings_for(database)
    ) as client:
        source = client.open_session()
        await source.send_text("First")
        asking = asyncio.create_task(source.send_text("Second"))
        await held.requested.wait()
        copy = await fork_session(client)
        assert [m["content"] for m in await copy.fetch_history()] == ["First", "One."]
        assert await copy.send_text("Other") == [text_chunk("Copied.")]
        held.release.set()
        assert await asking == [text_chunk("Two.")]


async def test_empty_session_can_be_forked(database: str) -> None:
    async with start_service(make_model(choose_agent("ask"), say_text("Hi.")), settings_for(database)) as client:
        created = (await client.http.post("/sessions")).json()["session_id"]
        copied = (await client.http.post(f"/sessions/{created}/fork", json={})).json()["session_id"]
        assert await client.open_session(copied).fetch_history() == []
        assert (await client.open_session(copied).send_text("Hello"))[-1] == text_chunk("Hi.")


async def test_message_without_agent_metadata_keeps_the_current_agent() -> None:
    switches: Any = [{"from": "orchestrator", "to": "ask", "reason": "", "timestamp": ""}]
    state: Any = {"messages": [HumanMessage("a"), AIMessage("b")], "switches": switches, "agent": "ask"}
    assert history.snapshot_before(state, 0) == ConversationSnapshot([], switches, "ask")
