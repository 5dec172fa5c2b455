"""What a client sees who opens a session again, of one moment; and the session as one document."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from server import create_app
from sessions.store import sessions as session_rows
from tests.scripted import Held, asks, calls, chooses, model, says
from tests.service import given, service, settings_for, text

pytestmark = pytest.mark.anyio

WRITE = calls("write_file", path="a.py", content="x")
ABOUT = {
    "rule": "write.file",
    "reason": "Writing a file needs the user's approval.",
    "remember": {"pattern": "a.py"},
}


def totals(usage: dict[str, Any]) -> dict[str, Any]:
    """Of a session's usage, as its other views repeat them."""
    parts = ("session_id", "agents", "purposes", "runs", "budget")
    return {name: value for name, value in usage.items() if name not in parts}


async def test_a_session_at_rest(database: str) -> None:
    async with service(model(chooses("ask"), says("Hi."), says("Bye.")), settings_for(database)) as client:
        session = client.session()
        await session.user("Hello")
        await session.user("Goodbye")
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
        "usage": totals(usage),
        "last_event_id": view["last_event_id"],
    }
    assert [line for line in joined.text.split("\n") if line.startswith("event: ")] == ["event: done"]


async def test_a_session_in_which_nothing_was_said(database: str) -> None:
    async with service(model(), settings_for(database)) as client:
        session_id = (await client.http.post("/sessions")).json()["session_id"]
        view = await client.session(session_id).get("/sessions/{id}/view")
        assert (await client.http.get("/sessions/s-9/view")).status_code == 404
    assert (view["messages"], view["running"], view["last_event_id"]) == ([], False, None)


async def test_a_session_that_waits_for_its_user(database: str) -> None:
    async with service(model(chooses("coder"), WRITE), settings_for(database)) as client:
        await client.session().user("Write a.py")
        view = await client.session().get("/sessions/{id}/view")
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
        "metadata": ABOUT,
    }
    assert view["pending_approvals"] == ["call_1"]


async def test_a_session_at_work_is_as_it_was_before_the_run_that_can_be_joined_from_its_start(database: str) -> None:
    held = Held(says("Two."))
    llm = model(chooses("ask"), says("One."), held, says("Three."))
    async with service(llm, settings_for(database)) as client:
        session = client.session()
        await session.user("First")
        before = await session.get("/sessions/{id}/view")
        second = asyncio.create_task(session.user("Second"))
        await held.asked.wait()
        async with client.http.stream("POST", "/agent/message/stream", json=asking("Third")) as third:
            view = await session.get("/sessions/{id}/view")
            held.release.set()
            await second
            await third.aread()
        after = await session.get("/sessions/{id}/view")
    run = view.pop("run")
    assert run.pop("created_at") > before["last_activity"]
    assert run == {"id": run["id"], "status": "running", "input": {"type": "user_message", "content": "Second"} | SENT}
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


SENT = {"stream": {"tokens": False, "parallel_tools": False, "usage": False}}


def asking(content: str) -> dict[str, Any]:
    return {"session_id": "s-1", "message": {"type": "user_message", "content": content}}


async def test_a_first_run_that_was_handed_over_is_not_part_of_the_history_yet(database: str) -> None:
    settings = settings_for(database, shutdown_seconds=0)
    cut, held = Held(says("Never.")), Held(says("One."))
    async with service(model(chooses("ask"), cut), settings) as client:
        running = asyncio.create_task(client.session().user("First"))
        await cut.asked.wait()
    with pytest.raises(httpx.HTTPError):
        await running
    async with service(model(held), settings) as client:
        session = client.session()
        await held.asked.wait()
        view = await session.get("/sessions/{id}/view")
        copy = (await client.http.post("/sessions/s-1/fork")).json()
        held.release.set()
        while (after := await session.get("/sessions/{id}/view"))["running"]:
            pass
    assert (view["messages"], view["agent_history"], view["run"]["input"]["content"]) == ([], [], "First")
    assert (copy["message_count"], copy["current_agent"]) == (0, "orchestrator")
    assert ([message["content"] for message in after["messages"]], after["current_agent"]) == (["First", "One."], "ask")


async def test_a_call_whose_answer_is_at_work_is_not_open(database: str) -> None:
    held = Held(says("Well."))
    llm = model(chooses("coder"), asks(("write_file", "call_1", '{"path": "a", "content": ""}')), held)
    async with service(llm, settings_for(database)) as client:
        session = client.session()
        await session.user("Write a")
        rejecting = asyncio.create_task(session.decide("reject"))
        await held.asked.wait()
        view = await session.get("/sessions/{id}/view")
        pending = await session.get("/sessions/{id}/pending-approvals")
        held.release.set()
        assert await rejecting == [text("Well.")]
    assert (view["open_calls"], view["running"]) == ([], True)
    assert pending["pending_approvals"] == []


async def test_the_history_is_read_where_the_row_says_even_if_the_thread_went_on(database: str) -> None:
    write = ("write_file", None, '{"path": "a.py", "content": "x"}')
    lines = [line for number in range(4) for line in (asks(write), says(f"{number}."))]
    settings = settings_for(database)
    app = create_app(settings, given(model(chooses("coder"), *lines)))
    async with service(None, settings, app) as client:
        session, views, heads = client.session(), [], []
        for number in range(4):
            await session.user(f"Write {number}")
            views.append(await session.get("/sessions/{id}/view"))
            heads.append(await head_of(app))
            await session.decide("reject", views[-1]["pending_approvals"][0])
        newest = await session.history()
        for view, head in zip(views, heads, strict=True):
            await name_head(app, head)
            assert (await session.get("/sessions/{id}/view"))["messages"] == view["messages"]
        for gone in ("1f000000-0000-6000-8000-000000000000", None):
            await name_head(app, gone)
            assert (await session.get("/sessions/{id}/view"))["messages"] == newest


async def head_of(app: FastAPI) -> str | None:
    row = await app.state.database.transact(lambda connection: session_rows.find_including_deleted(connection, "s-1"))
    head: str | None = row["head"]
    return head


async def name_head(app: FastAPI, head: str | None) -> None:
    await app.state.database.transact(lambda connection: session_rows.update_session(connection, "s-1", head=head))


async def test_of_parallel_calls_those_are_open_that_nobody_answered(database: str) -> None:
    read = [("read_file", f"call_{n}", f'{{"path": "{n}.py"}}') for n in (1, 2)]
    async with service(model(chooses("coder"), asks(*read)), settings_for(database)) as client:
        session = client.session(parallel_tools=True)
        await session.user("Read both")
        assert await session.result("x", "call_1") == []
        view = await session.get("/sessions/{id}/view")
    assert [(call["call_id"], call["requires_approval"]) for call in view["open_calls"]] == [("call_2", False)]


@pytest.mark.parametrize("messages", ["-1", "1001", "x"])
async def test_a_tail_that_cannot_be(database: str, messages: str) -> None:
    async with service(model(chooses("ask"), says("Hi.")), settings_for(database)) as client:
        await client.session().user("Hello")
        assert (await client.http.get(f"/sessions/s-1/view?messages={messages}")).status_code == 422
        assert (await client.session().get("/sessions/{id}/view", messages=0))["messages"] == []


async def test_a_session_is_exported_as_one_document(database: str) -> None:
    llm = model(chooses("coder"), WRITE, says("Fine."))
    remember = {"scope": "turn", "pattern": "*.py"}
    async with service(llm, settings_for(database)) as client:
        session = client.session()
        await session.user("Write a.py", id="m-1")
        await session.decide("approve", remember=remember)
        await session.result("done")
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
        "usage": totals(usage),
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
