"""Taking the last message back, and copying a conversation as it is or was."""

import asyncio
from typing import Any

import psycopg
import pytest
from langchain_core.messages import AIMessage, HumanMessage

from graph.execution import history
from graph.execution.history import ConversationSnapshot
from tests.scripted import Held, asks, calls, chooses, model, says
from tests.service import Client, Session, service, settings_for, switched, text, tool_call, write_approval
from tests.storage import executed
from tests.test_properties import check_sent_to_the_model, check_sound

pytestmark = pytest.mark.anyio

WRITE = calls("write_file", path="a.py", content="x")
READ = calls("read_file", path="a.py")


async def undone(session: Session) -> dict[str, Any]:
    response = await session.http.post(f"/sessions/{session.id}/undo")
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer


async def test_the_last_message_is_taken_back_and_the_next_one_finds_what_it_found(database: str) -> None:
    llm = model(chooses("ask"), says("One."), says("Two."), says("Three."), says("Four."))
    async with service(llm, settings_for(database)) as client:
        session = client.session()
        await session.user("First")
        await session.user("Second")
        before = await session.get("/agents/{id}/current")
        assert await undone(session) == {
            "session_id": "s-1",
            "undone": "Second",
            "message_count": 2,
            "current_agent": "ask",
        }
        assert [message["content"] for message in await session.history()] == ["First", "One."]
        assert await session.get("/agents/{id}/current") == before
        shown = await session.get("/sessions/{id}")
        assert (shown["title"], shown["message_count"]) == ("First", 2)
        assert await session.user("Third") == [text("Three.")]
    async with service(llm, settings_for(database)) as client:
        await undone(client.session())
        assert await client.session().user("Fourth") == [text("Four.")]
        assert [m["content"] for m in await client.session().history()] == ["First", "One.", "Fourth", "Four."]
    assert [message.content for message in llm.heard[-1][1:]] == ["First", "One.", "Fourth"]


async def test_all_messages_are_taken_back_one_after_the_other(database: str) -> None:
    llm = model(chooses("ask"), says("One."), says("Two."), chooses("coder"), says("Three."))
    async with service(llm, settings_for(database)) as client:
        session = client.session()
        missing = await client.http.post("/sessions/s-1/undo")
        await session.user("First")
        await session.switch("coder", content="Second")
        assert (await undone(session))["current_agent"] == "ask"
        assert (await session.get("/agents/{id}/current"))["switch_count"] == 1
        last = await undone(session)
        nothing = await client.http.post("/sessions/s-1/undo")
        assert await session.get("/agents/{id}/current") == {
            "session_id": "s-1",
            "current_agent": "orchestrator",
            "agent_history": [],
            "switch_count": 0,
        }
        assert await session.user("Third") == [switched("orchestrator", "coder"), text("Three.")]
    assert missing.status_code == 404
    assert (last["undone"], last["message_count"], last["current_agent"]) == ("First", 0, "orchestrator")
    assert (nothing.status_code, nothing.json()) == (
        409,
        {"error": "The user has said nothing that could be taken back.", "code": "nothing_to_undo"},
    )


async def test_open_calls_are_closed_and_their_ids_may_come_again(database: str) -> None:
    llm = model(chooses("coder"), says("Hi."), WRITE, WRITE, says("Written."))
    async with service(llm, settings_for(database)) as client:
        session = client.session()
        await session.user("Hello")
        await session.user("Write a.py", id="m-1")
        await undone(session)
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
        assert (await session.get("/sessions/{id}/calls"))["calls"] == []
        (late,) = await session.decide("approve")
        (closed,) = (await session.get("/sessions/{id}/audit"))["entries"]
        assert await session.user("Write a.py", id="m-1") == [write_approval("a.py", "x")]
        assert await session.decide("approve") == [tool_call("write_file", path="a.py", content="x")]
        assert await session.result("done") == [text("Written.")]
        (call,) = (await session.get("/sessions/{id}/calls"))["calls"]
        assert check_sound(await session.history()) == []
        assert (await session.get("/sessions/{id}/audit"))["count"] == 2
    assert late["metadata"]["code"] == "call_not_open"
    assert (closed["call_id"], closed["decision"], closed["decided_by"], closed["feedback"]) == (
        "call_1",
        "cancel",
        "system",
        "the user took the message back",
    )
    assert (call["status"], call["decision"], call["decided_by"]) == ("answered", "approve", "hitl_decision")


async def test_results_of_an_undone_turn_may_come_again(database: str) -> None:
    llm = model(chooses("ask"), READ, says("One."), READ, says("Two."))
    async with service(llm, settings_for(database)) as client:
        session = client.session()
        await session.user("Read a.py")
        await session.result("x = 1")
        await undone(session)
        assert (await session.switch("ask", content="Read a.py"))[-1] == tool_call("read_file", path="a.py")
        assert await session.result("x = 1") == [text("Two.")]
        assert await session.result("x = 1") == [text("Two.")]


async def test_what_was_cancelled_before_it_was_taken_in_is_taken_back_as_well(database: str) -> None:
    held = Held(chooses("coder"))
    llm = model(chooses("ask"), says("One."), held)
    async with service(llm, settings_for(database)) as client:
        session = client.session()
        await session.user("First")
        await session.switch("orchestrator")
        asking = asyncio.create_task(session.user("Second"))
        await held.asked.wait()
        await client.http.post("/sessions/s-1/cancel")
        await asking
        assert [m["content"] for m in await session.history()] == ["First", "One.", "Second"]
        assert (await undone(session))["current_agent"] == "orchestrator"
        assert (await undone(session))["undone"] == "First"


async def test_a_turn_grant_ends_with_the_turn_that_is_taken_back(database: str) -> None:
    llm = model(chooses("coder"), WRITE, says("Written."))
    async with service(llm, settings_for(database)) as client:
        session = client.session()
        await session.user("Write a.py")
        await session.decide("approve", remember={"scope": "turn"})
        assert (await session.get("/sessions/{id}/grants"))["count"] == 1
        await undone(session)
        assert (await session.get("/sessions/{id}/grants"))["count"] == 0


async def test_undo_waits_for_the_run_that_goes_on(database: str) -> None:
    held = Held(says("Two."))
    async with service(model(chooses("ask"), says("One."), held), settings_for(database)) as client:
        session = client.session()
        await session.user("First")
        asking = asyncio.create_task(session.user("Second"))
        await held.asked.wait()
        undoing = asyncio.create_task(undone(session))
        await session.get("/sessions/{id}")
        assert not undoing.done()
        held.release.set()
        assert await asking == [text("Two.")]
        assert (await undoing)["undone"] == "Second"


async def test_a_message_that_comes_meanwhile_keeps_its_id(shared: str) -> None:
    held = Held(says("Two."))
    async with service(model(chooses("ask"), says("One."), held), settings_for(shared)) as client:
        session = client.session()
        await session.user("First")
        with psycopg.connect(shared.replace("+asyncpg", "")) as holder:
            holder.execute("lock table checkpoints")
            undoing = asyncio.create_task(undone(session))
            await until(shared, "select pid from pg_locks where not granted")
            asking = asyncio.create_task(session.switch("ask", content="Second", id="m-2"))
            await until(shared, "select id from runs where status = 'queued'")
        assert (await undoing)["undone"] == "First"
        await held.asked.wait()
        again = asyncio.create_task(session.switch("ask", content="Second", id="m-2"))
        await session.get("/sessions/{id}")
        held.release.set()
        assert (await asking)[-1] == (await again)[-1] == text("Two.")
        assert [each["content"] for each in await session.history()] == ["Second", "Two."]


async def until(database: str, found: str) -> None:
    """A statement that finds something."""
    async with asyncio.timeout(5):
        while True:
            if executed(database, found):
                return
            await asyncio.sleep(0.02)


async def fork(client: Client, **body: Any) -> Session:
    answer = (await client.http.post("/sessions/s-1/fork", json=body)).raise_for_status().json()
    shown = (await client.http.get(f"/sessions/{answer['session_id']}")).json()
    assert answer == {
        **{name: shown[name] for name in ("session_id", "message_count", "current_agent", "created_at", "title")},
        "forked_from": "s-1",
    }
    return client.session(answer["session_id"])


async def test_a_copy_goes_its_own_way(database: str) -> None:
    llm = model(chooses("ask"), says("One."), says("Two."), says("Three."), says("Four."))
    async with service(llm, settings_for(database)) as client:
        source = client.session()
        await source.user("First")
        await source.user("Second")
        copy = await fork(client)
        assert await copy.history() == await source.history()
        assert (await copy.get("/agents/{id}/current"))["agent_history"] == (await source.get("/agents/{id}/current"))[
            "agent_history"
        ]
        assert await copy.user("Third") == [text("Three.")]
        assert await source.user("Fourth") == [text("Four.")]
        assert [m["content"] for m in (await copy.history())[4:]] == ["Third", "Three."]
        assert [m["content"] for m in (await source.history())[4:]] == ["Fourth", "Four."]
        assert [s["title"] for s in (await source.get("/sessions"))["sessions"]] == ["First", "First"]
        assert (await undone(copy))["undone"] == "Third"
        assert (await undone(copy))["undone"] == "Second"


async def test_a_copy_of_an_earlier_turn(database: str) -> None:
    llm = model(chooses("ask"), says("One."), READ, says("Two."), says("Three."))
    async with service(llm, settings_for(database)) as client:
        source = client.session()
        await source.user("First")
        await source.switch("coder", content="Second")
        await source.user("Third")
        histories = [await (await fork(client, turn=turn)).history() for turn in (1, 2, 3)]
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


async def test_open_calls_stay_with_the_session_that_is_copied(database: str) -> None:
    both = asks(("write_file", "call_1", '{"path": "a", "content": ""}'), ("read_file", "call_2", '{"path": "b"}'))
    llm = model(chooses("coder"), both, says("Copied."), says("Done."))
    async with service(llm, settings_for(database)) as client:
        source = client.session(parallel_tools=True)
        await source.user("Both")
        await source.result("b", "call_2")
        copy = await fork(client)
        assert check_sound(await copy.history()) == []
        assert (await copy.history())[-1]["content"] == (
            "cancelled: this is a copy; the call belongs to the session it was made from"
        )
        for path in ("pending-approvals", "grants", "audit"):
            assert (await copy.get(f"/sessions/{{id}}/{path}"))["count"] == 0
        calls_of_copy = (await copy.get("/sessions/{id}/calls"))["calls"]
        (late,) = await copy.decide("approve")
        assert await copy.user("Go on") == [text("Copied.")]
        assert [chunk["call_id"] for chunk in await source.decide("approve")] == ["call_1"]
        assert await source.result("ok", "call_1") == [text("Done.")]
    assert [(call["call_id"], call["status"]) for call in calls_of_copy] == [
        ("call_1", "cancelled"),
        ("call_2", "answered"),
    ]
    assert late["metadata"]["code"] == "call_not_open"
    for heard in llm.heard[1:]:
        check_sent_to_the_model(heard)


async def test_a_session_at_work_is_copied_as_it_was_before_the_run(database: str) -> None:
    held = Held(says("Two."))
    async with service(model(chooses("ask"), says("One."), held, says("Copied.")), settings_for(database)) as client:
        source = client.session()
        await source.user("First")
        asking = asyncio.create_task(source.user("Second"))
        await held.asked.wait()
        copy = await fork(client)
        assert [m["content"] for m in await copy.history()] == ["First", "One."]
        assert await copy.user("Other") == [text("Copied.")]
        held.release.set()
        assert await asking == [text("Two.")]


async def test_a_session_in_which_nothing_was_said_is_copied(database: str) -> None:
    async with service(model(chooses("ask"), says("Hi.")), settings_for(database)) as client:
        created = (await client.http.post("/sessions")).json()["session_id"]
        copied = (await client.http.post(f"/sessions/{created}/fork", json={})).json()["session_id"]
        assert await client.session(copied).history() == []
        assert (await client.session(copied).user("Hello"))[-1] == text("Hi.")


async def test_a_message_of_an_older_version_tells_nothing_of_its_agent() -> None:
    switches: Any = [{"from": "orchestrator", "to": "ask", "reason": "", "timestamp": ""}]
    state: Any = {"messages": [HumanMessage("a"), AIMessage("b")], "switches": switches, "agent": "ask"}
    assert history.snapshot_before(state, 0) == ConversationSnapshot([], switches, "ask")
