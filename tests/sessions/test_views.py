"""A view shows a session at one moment, and an export shows all of it in one document."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from server import create_app
from sessions.store import sessions as session_rows
from tests.support.scripted import DeferredReply, call_tool, call_tools, choose_agent, make_model, say_text
from tests.support.service import provide_model, settings_for, start_service, text_chunk
from tests.support.views import wait_until_idle

WRITE_CALL = call_tool("write_file", path="a.py", content="x")
CALL_METADATA = {
    "rule": "write.file",
    "reason": "Writing a file needs the user's approval.",
    "remember": {"pattern": "a.py"},
}


def select_totals(usage: dict[str, Any]) -> dict[str, Any]:
    """Return the totals of a session's usage, which its other views repeat."""
    parts = ("session_id", "agents", "purposes", "runs", "budget")
    return {name: value for name, value in usage.items() if name not in parts}


async def test_view_of_an_idle_session(database: str) -> None:
    async with start_service(
        make_model(choose_agent("ask"), say_text("Hi."), say_text("Bye.")), settings_for(database)
    ) as client:
        session = client.open_session()
        await session.send_text("Hello")
        await session.send_text("Goodbye")
        view = await session.get("/sessions/{id}/view", messages=3)
        shown = await session.get("/sessions/{id}")
        whole = await session.get("/sessions/{id}/history")
        usage = await session.get("/sessions/{id}/usage")
        joined = await client.http.get("/sessions/s-1/stream", headers={"Last-Event-ID": view["last_event_id"]})
    assert view == {
        **shown,
        "messages": whole["messages"][1:],
        "agent_history": whole["agent_history"],
        "open_calls": [],
        "pending_approvals": [],
        "running": False,
        "run": None,
        "waiting": 0,
        "usage": select_totals(usage),
        "last_event_id": view["last_event_id"],
    }
    assert [line for line in joined.text.split("\n") if line.startswith("event: ")] == ["event: done"]


async def test_view_of_an_empty_session(database: str) -> None:
    async with start_service(make_model(), settings_for(database)) as client:
        session_id = (await client.http.post("/sessions")).json()["session_id"]
        view = await client.open_session(session_id).get("/sessions/{id}/view")
        assert (await client.http.get("/sessions/s-9/view")).status_code == 404
    assert (view["messages"], view["running"], view["last_event_id"]) == ([], False, None)


async def test_view_of_a_paused_session(database: str) -> None:
    async with start_service(make_model(choose_agent("coder"), WRITE_CALL), settings_for(database)) as client:
        await client.open_session().send_text("Write a.py")
        view = await client.open_session().get("/sessions/{id}/view")
    (call,) = view["open_calls"]
    assert call.pop("created_at") < view["last_activity"]
    assert call == {
        "call_id": "call_1",
        "tool_name": "write_file",
        "agent": "coder",
        "arguments": {"path": "a.py", "content": "x"},
        "requires_approval": True,
        "rule": "write.file",
        "reason": "Writing a file needs the user's approval.",
        "metadata": CALL_METADATA,
    }
    assert view["pending_approvals"] == ["call_1"]


async def test_view_of_a_running_session_shows_the_state_before_the_run(database: str) -> None:
    held = DeferredReply(say_text("Two."))
    llm = make_model(choose_agent("ask"), say_text("One."), held, say_text("Three."))
    async with start_service(llm, settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("First")
        before = await session.get("/sessions/{id}/view")
        second = asyncio.create_task(session.send_text("Second"))
        await held.requested.wait()
        async with client.http.stream("POST", "/agent/message/stream", json=build_message_body("Third")) as third:
            view = await session.get("/sessions/{id}/view")
            held.release.set()
            await second
            await third.aread()
        after = await session.get("/sessions/{id}/view")
    run = view.pop("run")
    assert run.pop("created_at") > before["last_activity"]
    assert run == {
        "id": run["id"],
        "status": "running",
        "input": {"type": "user_message", "content": "Second"} | STREAM_OPTIONS,
    }
    unchanged = {name: value for name, value in before.items() if name not in ("run", "running", "waiting")}
    assert view == {**unchanged, "running": True, "waiting": 1, "last_event_id": f"{run['id']}-0"}
    assert [message["content"] for message in after["messages"]] == [
        "First",
        "One.",
        "Second",
        "Two.",
        "Third",
        "Three.",
    ]
    assert (after["running"], after["run"], after["waiting"]) == (False, None, 0)


STREAM_OPTIONS = {"stream": {"tokens": False, "parallel_tools": False, "usage": False}}


def build_message_body(content: str) -> dict[str, Any]:
    return {"session_id": "s-1", "message": {"type": "user_message", "content": content}}


async def test_handed_over_first_run_is_not_in_the_history(database: str) -> None:
    settings = settings_for(database, shutdown_seconds=0)
    cut, held = DeferredReply(say_text("Never.")), DeferredReply(say_text("One."))
    async with start_service(make_model(choose_agent("ask"), cut), settings) as client:
        running = asyncio.create_task(client.open_session().send_text("First"))
        await cut.requested.wait()
    with pytest.raises(httpx.HTTPError):
        await running
    async with start_service(make_model(held), settings) as client:
        session = client.open_session()
        await held.requested.wait()
        view = await session.get("/sessions/{id}/view")
        copy = (await client.http.post("/sessions/s-1/fork")).json()
        held.release.set()
        await wait_until_idle(session)
        after = await session.get("/sessions/{id}/view")
    assert (view["messages"], view["agent_history"], view["run"]["input"]["content"]) == ([], [], "First")
    assert (copy["message_count"], copy["current_agent"]) == (0, "orchestrator")
    assert ([message["content"] for message in after["messages"]], after["current_agent"]) == (["First", "One."], "ask")


async def test_call_with_a_running_answer_is_not_open(database: str) -> None:
    held = DeferredReply(say_text("Well."))
    llm = make_model(choose_agent("coder"), call_tools(("write_file", "call_1", '{"path": "a", "content": ""}')), held)
    async with start_service(llm, settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("Write a")
        rejecting = asyncio.create_task(session.decide("reject"))
        await held.requested.wait()
        view = await session.get("/sessions/{id}/view")
        pending = await session.get("/sessions/{id}/pending-approvals")
        held.release.set()
        assert await rejecting == [text_chunk("Well.")]
    assert (view["open_calls"], view["running"]) == ([], True)
    assert pending["pending_approvals"] == []


async def test_history_is_read_at_the_checkpoint_of_the_session_row(database: str) -> None:
    write = ("write_file", None, '{"path": "a.py", "content": "x"}')
    lines = [line for number in range(4) for line in (call_tools(write), say_text(f"{number}."))]
    settings = settings_for(database)
    app = create_app(settings, provide_model(make_model(choose_agent("coder"), *lines)))
    async with start_service(None, settings, app) as client:
        session, views, heads = client.open_session(), [], []
        for number in range(4):
            await session.send_text(f"Write {number}")
            views.append(await session.get("/sessions/{id}/view"))
            heads.append(await fetch_checkpoint_id(app))
            await session.decide("reject", views[-1]["pending_approvals"][0])
        newest = await session.fetch_history()
        for view, head in zip(views, heads, strict=True):
            await set_checkpoint_id(app, head)
            assert (await session.get("/sessions/{id}/view"))["messages"] == view["messages"]
        for gone in ("1f000000-0000-6000-8000-000000000000", None):
            await set_checkpoint_id(app, gone)
            assert (await session.get("/sessions/{id}/view"))["messages"] == newest


async def fetch_checkpoint_id(app: FastAPI) -> str | None:
    row = await app.state.deps.database.transact(lambda c: session_rows.find_including_deleted(c, "s-1"))
    head: str | None = row["checkpoint_id"]
    return head


async def set_checkpoint_id(app: FastAPI, head: str | None) -> None:
    await app.state.deps.database.transact(
        lambda connection: session_rows.update_session(connection, "s-1", checkpoint_id=head)
    )


async def test_unanswered_parallel_calls_are_open(database: str) -> None:
    read = [("read_file", f"call_{n}", f'{{"path": "{n}.py"}}') for n in (1, 2)]
    async with start_service(make_model(choose_agent("coder"), call_tools(*read)), settings_for(database)) as client:
        session = client.open_session(parallel_tools=True)
        await session.send_text("Read both")
        assert await session.send_result("x", "call_1") == []
        view = await session.get("/sessions/{id}/view")
    assert [(call["call_id"], call["requires_approval"]) for call in view["open_calls"]] == [("call_2", False)]


@pytest.mark.parametrize("messages", ["-1", "1001", "x"])
async def test_invalid_message_count_is_refused(database: str, messages: str) -> None:
    async with start_service(make_model(choose_agent("ask"), say_text("Hi.")), settings_for(database)) as client:
        await client.open_session().send_text("Hello")
        assert (await client.http.get(f"/sessions/s-1/view?messages={messages}")).status_code == 422
        assert (await client.open_session().get("/sessions/{id}/view", messages=0))["messages"] == []


async def test_a_session_is_exported_as_one_document(database: str) -> None:
    llm = make_model(choose_agent("coder"), WRITE_CALL, say_text("Fine."))
    remember = {"scope": "turn", "pattern": "*.py"}
    async with start_service(llm, settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("Write a.py", id="m-1")
        await session.decide("approve", remember=remember)
        await session.send_result("done")
        document = await session.get("/sessions/{id}/export")
        audit = await session.get("/sessions/{id}/audit")
        listed = await session.get("/sessions/{id}/calls")
        shown = await session.get("/sessions/{id}")
        history = await session.get("/sessions/{id}/history")
        usage = await session.get("/sessions/{id}/usage")
        await client.http.delete("/sessions/s-1")
        assert (await client.http.get("/sessions/s-1/export")).status_code == 404
    exported, granted, runs = document.pop("exported_at"), document.pop("grants"), document.pop("runs")
    [routed] = document.pop("routings")
    assert exported > shown["last_activity"]
    assert document == {
        "version": 1,
        "session": shown,
        "messages": history["messages"],
        "agent_history": history["agent_history"],
        "audit": {"entries": audit["entries"], "results": audit["results"]},
        "calls": listed["calls"],
        "usage": select_totals(usage),
    }
    assert (routed["text"], routed["agent"], routed["method"]) == ("Write a.py", "coder", "llm")
    assert [(grant["pattern"], grant["scope"], grant["ended_at"]) for grant in granted] == [("*.py", "turn", None)]
    assert [(run["number"], run["status"], run["input"]["type"], run["attempts"]) for run in runs] == [
        (1, "done", "user_message", 1),
        (2, "done", "hitl_decision", 1),
        (3, "done", "tool_result", 1),
    ]
    assert [event["id"] for event in runs[0]["events"]] == [f"{runs[0]['id']}-1", f"{runs[0]['id']}-2"]
    assert all(run["created_at"] < run["finished_at"] for run in runs)
    assert [run["usage"]["calls"] for run in reversed(runs) if run["usage"]] == [run["calls"] for run in usage["runs"]]
