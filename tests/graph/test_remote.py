"""The service works in front of a real LangGraph server, which runs the graph and keeps its threads."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import NotFoundError

from graph.errors import GraphUnavailable
from graph.execution.remote_format import derive_thread_id
from graph.permissions.decisions import CANCELLED_RESULT, EDITED_NOTE
from graph.settings import Settings
from tests.support.langgraph_dev import LangGraphDev, start_langgraph_dev
from tests.support.llm_server import (
    Responder,
    ScriptedLLM,
    build_delta,
    encode_sse,
    hang_after,
    respond_choice,
    respond_raw,
    respond_text,
    respond_tool_call,
)
from tests.support.paths import PROJECT_ROOT
from tests.support.ports import find_free_port
from tests.support.process import start_process
from tests.support.service import (
    agent_switch_chunk,
    parse_chunks,
    settings_for,
    start_service,
    text_chunk,
    tool_call_chunk,
    write_approval_chunk,
)


class RemoteServer:
    """A LangGraph server, and the port of its graph's model."""

    def __init__(self, server: LangGraphDev, model_port: int) -> None:
        self.server, self._model_port = server, model_port

    def start_model(self, *steps: Responder, **otherwise: Any) -> ScriptedLLM:
        return ScriptedLLM(*steps, port=self._model_port, **otherwise)

    def build_settings(self, folder: Path, **changes: Any) -> Settings:
        return settings_for(folder, graph_url=self.server.url, **changes)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteServer]:
    port = find_free_port()
    model = {
        "llm_model": "scripted",
        "llm_proxy_url": f"http://127.0.0.1:{port}",
        "llm_retries": "0",
        "routing_cache_size": "0",
    }
    with start_langgraph_dev(tmp_path_factory.mktemp("remote"), **model) as server:
        yield RemoteServer(server, port)


@pytest.fixture
def name() -> str:
    """Return the name of a session that the server has not seen."""
    return uuid4().hex


def test_graph_name_matches_langgraph_json() -> None:
    assert [*json.loads((PROJECT_ROOT / "langgraph.json").read_text())["graphs"]] == [
        Settings(_env_file=None).graph_name
    ]


async def test_remote_turn_with_approvals_and_edits(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    model = remote.start_model(
        respond_choice("coder"),
        respond_text("Let me look.") & respond_tool_call("read_file", path="a.py"),
        respond_tool_call("write_file", "call_2", path="a.py", content="x"),
        respond_tool_call("write_file", "call_3", path="b.py", content="y"),
        respond_tool_call("write_file", "call_4", path="c.py", content="z"),
        respond_text("Then not."),
    )
    async with model, start_service(None, remote.build_settings(tmp_path)) as client:
        session = client.open_session(name)
        assert await session.send_text("Write a.py") == [
            agent_switch_chunk("orchestrator", "coder"),
            text_chunk("Let me look.", is_final=False),
            tool_call_chunk("read_file", path="a.py"),
        ]
        asked = drop_remember(write_approval_chunk("a.py", "x", "call_2"))
        assert await session.send_result("x = 1") == [asked]
        assert await session.send_result("x = 1") == [asked]
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 1
        (refused,) = await session.decide("approve", "call_2", remember={"scope": "session"})
        assert refused["metadata"]["code"] == "invalid_decision"
        assert await session.decide("approve", "call_2") == [
            tool_call_chunk("write_file", "call_2", path="a.py", content="x")
        ]
        await session.send_result("written", "call_2")
        edited = tool_call_chunk("write_file", "call_3", path="b.py", content="yy")
        assert await session.decide("edit", "call_3", modified_arguments={"content": "yy"}) == [edited]
        await session.send_result("written", "call_3")
        assert await session.decide("reject", "call_4", feedback="Not there.") == [text_chunk("Then not.")]
        assert summarize_history(await session.fetch_history()) == [
            ("user", "Write a.py"),
            ("assistant", "Let me look."),
            ("tool", "x = 1"),
            ("assistant", '{"path": "a.py", "content": "x"}'),
            ("tool", "written"),
            ("assistant", '{"path": "b.py", "content": "yy"}'),
            ("tool", f"{EDITED_NOTE}written"),
            ("assistant", '{"path": "c.py", "content": "z"}'),
            ("tool", "The user rejected this call. They said: Not there."),
            ("assistant", "Then not."),
        ]
        decided = [each["decision"] for each in (await session.get("/sessions/{id}/audit"))["entries"]]
        assert decided == ["approve", "edit", "reject"]
        assert len(model.requests) == 6


async def test_tokens_and_usage_are_streamed_on_request(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    async with (
        remote.start_model(respond_text("One two.")),
        start_service(None, remote.build_settings(tmp_path)) as client,
    ):
        chunks = await client.open_session(name, tokens=True, usage=True).switch("ask", content="Count")
        assert [chunk["token"] for chunk in chunks if "token" in chunk] == ["One", " two."]
        assert [chunk["type"] for chunk in chunks[-2:]] == ["usage", "assistant_message"]


async def test_message_closes_open_calls_after_a_restart(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    async with remote.start_model(
        respond_tool_call("write_file", path="a.py", content="x"), respond_text("Another thing.")
    ):
        async with start_service(None, remote.build_settings(tmp_path)) as client:
            await client.open_session(name).switch("coder", content="Write a.py")
        async with start_service(None, remote.build_settings(tmp_path)) as client:
            session = client.open_session(name)
            assert await session.send_text("Leave it") == [text_chunk("Another thing.")]
            assert ("tool", CANCELLED_RESULT) in summarize_history(await session.fetch_history())
            (late,) = await session.decide("approve")
            assert late["metadata"]["code"] == "call_not_open"


async def test_cancel_works_in_each_phase_of_a_run(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    """The phases are a specialist's model call, a classification, and a pause."""
    model = remote.start_model(
        hang_after(),
        respond_choice("coder"),
        hang_after(),
        respond_tool_call("write_file", path="a.py", content="x"),
        respond_text("Here I am."),
    )
    async with model, start_service(None, remote.build_settings(tmp_path)) as client:
        session = client.open_session(name)
        for number, content in ((1, "First"), (3, "Second")):
            asking = asyncio.create_task(session.send_text(content))
            await model.wait_for_requests(number)
            await client.http.post(f"/sessions/{name}/cancel")
            assert (await asking)[-1]["metadata"]["code"] == "cancelled"
        assert (await session.send_text("Third"))[-1]["type"] == "tool_call"
        await client.http.post(f"/sessions/{name}/cancel")
        assert await session.send_text("Fourth") == [text_chunk("Here I am.")]
        assert summarize_history(await session.fetch_history()) == [
            ("user", "First"),
            ("user", "Second"),
            ("user", "Third"),
            ("assistant", '{"path": "a.py", "content": "x"}'),
            ("tool", CANCELLED_RESULT),
            ("user", "Fourth"),
            ("assistant", "Here I am."),
        ]


async def test_remote_run_is_stopped_at_its_time_limit(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    settings = remote.build_settings(tmp_path, max_run_minutes=1 / 60)
    async with remote.start_model(hang_after()), start_service(None, settings) as client:
        stopped = (await client.open_session(name).switch("ask", content="Think"))[-1]
        assert stopped["metadata"]["code"] == "limit_reached"


async def test_run_continues_when_the_service_is_killed(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    """The next process waits for the run; it is not repeated."""
    answer = asyncio.Event()
    database = f"sqlite:///{tmp_path}/test.db"
    async with remote.start_model(respond_choice("ask"), respond_text("At last.", after=answer)) as model:
        async with start_process(database, graph_url=remote.server.url) as edge:
            asking = asyncio.create_task(edge.open_session(name).send_text("Think"))
            await model.wait_for_requests(2)
            await edge.kill()
            await asyncio.wait([asking])
            asking.exception()
        async with start_process(database, graph_url=remote.server.url) as edge:
            joining = asyncio.create_task(edge.http.get(f"/sessions/{name}/stream"))
            answer.set()
            assert parse_chunks(await joining)[-1] == text_chunk("At last.")
            assert summarize_history(await edge.open_session(name).fetch_history()) == [
                ("user", "Think"),
                ("assistant", "At last."),
            ]
        assert len(model.requests) == 2


async def test_run_can_be_cancelled_after_a_restart(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    async with remote.start_model(respond_choice("ask"), hang_after(), respond_text("Here I am.")) as model:
        async with start_process(database, graph_url=remote.server.url, shutdown_seconds="0") as edge:
            asking = asyncio.create_task(edge.open_session(name).send_text("Think"))
            await model.wait_for_requests(2)
            await edge.kill(signal.SIGTERM)
            await asyncio.wait([asking])
            asking.exception()
        async with start_process(database, graph_url=remote.server.url) as edge:
            joining = asyncio.create_task(edge.http.get(f"/sessions/{name}/stream"))
            (await edge.http.post(f"/sessions/{name}/cancel")).raise_for_status()
            assert parse_chunks(await joining)[-1]["metadata"]["code"] == "cancelled"
            assert await edge.open_session(name).send_text("Hello?") == [text_chunk("Here I am.")]


async def test_runs_resume_after_a_restart_of_the_graph_server(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    """The server keeps its threads and resumes its runs: a stream continues where it was."""
    model = remote.start_model(
        respond_tool_call("write_file", path="a.py", content="x"),
        hang_after(),
        respond_text("At last."),
        respond_text("Written."),
    )
    async with model, start_service(None, remote.build_settings(tmp_path)) as client:
        paused, running = client.open_session(name), client.open_session(f"{name}-2")
        await paused.switch("coder", content="Write a.py")
        asking = asyncio.create_task(running.switch("ask", content="Think"))
        await model.wait_for_requests(2)
        await asyncio.to_thread(remote.server.end)
        (failed,) = await paused.send_result("written")
        assert (failed["metadata"]["code"], failed["error"]) == ("internal", str(GraphUnavailable()))
        assert (await client.http.get(f"/sessions/{name}/history")).status_code == 503
        await asyncio.to_thread(remote.server.start)
        assert (await asking)[-1] == text_chunk("At last.")
        assert await paused.send_result("written") == [text_chunk("Written.")]


async def test_session_works_after_a_kill_of_the_graph_server(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    """The server stores its memory every ten seconds only: lost work is repeated before the next message."""
    model = remote.start_model(hang_after(), otherwise=lambda _: respond_text("Here I am."))
    async with model, start_service(None, remote.build_settings(tmp_path)) as client:
        session = client.open_session(name)
        asking = asyncio.create_task(session.switch("ask", content="Think"))
        await model.wait_for_requests(1)
        await asyncio.to_thread(remote.server.end, signal.SIGKILL)
        await asyncio.to_thread(remote.server.start)
        await asking  # an error, or the answer if it was not forgotten
        assert await session.send_text("Hello?") == [text_chunk("Here I am.")]
        heard, said = ("user", "Think"), ("assistant", "Here I am.")
        assert summarize_history(await session.fetch_history()) == [heard, said, ("user", "Hello?"), said]


async def test_undo_and_fork_work_remotely(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    model = remote.start_model(
        respond_text("One."), respond_text("Two."), respond_text("Three."), respond_text("Four.")
    )
    async with model, start_service(None, remote.build_settings(tmp_path)) as client:
        session = client.open_session(name)
        await session.switch("ask", content="First")
        await session.send_text("Second")
        copy = (await client.http.post(f"/sessions/{name}/fork", json={"turn": 1})).raise_for_status().json()
        undone = (await client.http.post(f"/sessions/{name}/undo")).raise_for_status().json()
        assert (undone["undone"], undone["message_count"], undone["current_agent"]) == ("Second", 2, "ask")
        for each, content, answer in (
            (session, "Third", "Three."),
            (client.open_session(copy["session_id"]), "4", "Four."),
        ):
            assert await each.send_text(content) == [text_chunk(answer)]
            said = [("user", "First"), ("assistant", "One."), ("user", content), ("assistant", answer)]
            assert summarize_history(await each.fetch_history()) == said
            assert (await each.get("/sessions/{id}/view"))["message_count"] == 4


async def test_delete_removes_the_remote_thread(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    # The last one: langgraph dev stores no more of its threads' pauses after it has deleted one.
    model = remote.start_model(respond_text("Hello."), respond_text("Who are you?"), respond_text("And you?"))
    async with model, start_service(None, remote.build_settings(tmp_path)) as client:
        session = client.open_session(name)
        for how, answer in (({}, "Hello."), ({"hard": True}, "Who are you?")):
            await session.switch("ask", content="Hello")
            assert summarize_history(await session.fetch_history()) == [("user", "Hello"), ("assistant", answer)]
            (await client.http.delete(f"/sessions/{name}", params=how)).raise_for_status()
        async with get_client(url=remote.server.url) as langgraph:
            with pytest.raises(NotFoundError):
                await langgraph.threads.get(derive_thread_id(name))


def drop_remember(approval: dict[str, Any]) -> dict[str, Any]:
    return {**approval, "metadata": {k: v for k, v in approval["metadata"].items() if k != "remember"}}


def summarize_history(history: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the role and the text of each message; for a call without text, its arguments."""
    return [(each["role"], each["content"] or each["tool_calls"][0]["function"]["arguments"]) for each in history]


async def test_provider_data_survives_the_remote_graph(remote: RemoteServer, name: str, tmp_path: Path) -> None:
    """The thread is JSON there; a model gets its own id and its fields back, also the characters no database takes."""
    function = {"name": "read_file", "arguments": json.dumps({"path": "a.py"})}
    call = {"id": "functions.read_file:0", "type": "function", "function": function, "extra_content": {"x": "\0\ud800"}}
    deltas = build_delta(tool_calls=[{"index": 0, **call}], reasoning_content="Hm.\0"), build_delta("tool_calls")
    async with remote.start_model(respond_raw(encode_sse(*deltas, done=True)), respond_text("Done.")) as model:
        async with start_service(None, remote.build_settings(tmp_path)) as client:
            *_, asked = await client.open_session(name).switch("coder", content="Read a.py")
        async with start_service(None, remote.build_settings(tmp_path)) as client:
            assert await client.open_session(name).send_result("x", asked["call_id"]) == [text_chunk("Done.")]
        *_, request, result = model.requests[-1].body["messages"]
        assert request == {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "Hm.\0"}
        assert result["tool_call_id"] == call["id"]
