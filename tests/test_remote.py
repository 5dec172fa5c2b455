"""The service as the edge in front of a real LangGraph server, which runs our graph and keeps its threads."""

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
from graph.execution.remote import derive_thread_id
from graph.permissions.decisions import CANCELLED_RESULT, EDITED_NOTE
from graph.settings import Settings
from tests.langgraph_dev import PROJECT, LangGraphDev, free_port, langgraph_dev
from tests.llm_server import ScriptedLLM, Step, calls, chooses, hangs, says
from tests.process import serving
from tests.service import chunks_of, service, settings_for, switched, text, tool_call, write_approval

pytestmark = pytest.mark.anyio


class Remote:
    """The server, and where its graph looks for a model."""

    def __init__(self, server: LangGraphDev, model_port: int) -> None:
        self.server, self._model_port = server, model_port

    def model(self, *steps: Step, **otherwise: Any) -> ScriptedLLM:
        return ScriptedLLM(*steps, port=self._model_port, **otherwise)

    def settings(self, folder: Path, **changes: Any) -> Settings:
        return settings_for(folder, graph_url=self.server.url, **changes)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    port = free_port()
    model = {
        "llm_model": "scripted",
        "llm_proxy_url": f"http://127.0.0.1:{port}",
        "llm_retries": "0",
        "routing_cache_size": "0",
    }
    with langgraph_dev(tmp_path_factory.mktemp("remote"), **model) as server:
        yield Remote(server, port)


@pytest.fixture
def name() -> str:
    """Of a session that the server has not seen."""
    return uuid4().hex


def test_the_graphs_name_is_that_of_langgraph_json() -> None:
    assert [*json.loads((PROJECT / "langgraph.json").read_text())["graphs"]] == [Settings(_env_file=None).graph_name]


async def test_a_story(remote: Remote, name: str, tmp_path: Path) -> None:
    model = remote.model(
        chooses("coder"),
        says("Let me look.") & calls("read_file", path="a.py"),
        calls("write_file", "call_2", path="a.py", content="x"),
        calls("write_file", "call_3", path="b.py", content="y"),
        calls("write_file", "call_4", path="c.py", content="z"),
        says("Then not."),
    )
    async with model, service(None, remote.settings(tmp_path)) as client:
        session = client.session(name)
        assert await session.user("Write a.py") == [
            switched("orchestrator", "coder"),
            text("Let me look.", is_final=False),
            tool_call("read_file", path="a.py"),
        ]
        asked = unremembered(write_approval("a.py", "x", "call_2"))
        assert await session.result("x = 1") == [asked]
        assert await session.result("x = 1") == [asked]
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 1
        (refused,) = await session.decide("approve", "call_2", remember={"scope": "session"})
        assert refused["metadata"]["code"] == "invalid_decision"
        assert await session.decide("approve", "call_2") == [
            tool_call("write_file", "call_2", path="a.py", content="x")
        ]
        await session.result("written", "call_2")
        edited = tool_call("write_file", "call_3", path="b.py", content="yy")
        assert await session.decide("edit", "call_3", modified_arguments={"content": "yy"}) == [edited]
        await session.result("written", "call_3")
        assert await session.decide("reject", "call_4", feedback="Not there.") == [text("Then not.")]
        assert told(await session.history()) == [
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


async def test_tokens_and_usage_for_those_who_opted_in(remote: Remote, name: str, tmp_path: Path) -> None:
    async with remote.model(says("One two.")), service(None, remote.settings(tmp_path)) as client:
        chunks = await client.session(name, tokens=True, usage=True).switch("ask", content="Count")
        assert [chunk["token"] for chunk in chunks if "token" in chunk] == ["One", " two."]
        assert [chunk["type"] for chunk in chunks[-2:]] == ["usage", "assistant_message"]


async def test_a_message_closes_the_open_calls_also_in_an_edge_that_was_started_again(
    remote: Remote, name: str, tmp_path: Path
) -> None:
    async with remote.model(calls("write_file", path="a.py", content="x"), says("Another thing.")):
        async with service(None, remote.settings(tmp_path)) as client:
            await client.session(name).switch("coder", content="Write a.py")
        async with service(None, remote.settings(tmp_path)) as client:
            session = client.session(name)
            assert await session.user("Leave it") == [text("Another thing.")]
            assert ("tool", CANCELLED_RESULT) in told(await session.history())
            (late,) = await session.decide("approve")
            assert late["metadata"]["code"] == "call_not_open"


async def test_cancelling(remote: Remote, name: str, tmp_path: Path) -> None:
    """While a specialist is at work, while the orchestrator classifies, and during a pause."""
    model = remote.model(
        hangs(), chooses("coder"), hangs(), calls("write_file", path="a.py", content="x"), says("Here I am.")
    )
    async with model, service(None, remote.settings(tmp_path)) as client:
        session = client.session(name)
        for number, content in ((1, "First"), (3, "Second")):
            asking = asyncio.create_task(session.user(content))
            await model.received(number)
            await client.http.post(f"/sessions/{name}/cancel")
            assert (await asking)[-1]["metadata"]["code"] == "cancelled"
        assert (await session.user("Third"))[-1]["type"] == "tool_call"
        await client.http.post(f"/sessions/{name}/cancel")
        assert await session.user("Fourth") == [text("Here I am.")]
        assert told(await session.history()) == [
            ("user", "First"),
            ("user", "Second"),
            ("user", "Third"),
            ("assistant", '{"path": "a.py", "content": "x"}'),
            ("tool", CANCELLED_RESULT),
            ("user", "Fourth"),
            ("assistant", "Here I am."),
        ]


async def test_a_run_that_took_too_long_is_stopped(remote: Remote, name: str, tmp_path: Path) -> None:
    settings = remote.settings(tmp_path, max_run_minutes=1 / 60)
    async with remote.model(hangs()), service(None, settings) as client:
        stopped = (await client.session(name).switch("ask", content="Think"))[-1]
        assert stopped["metadata"]["code"] == "limit_reached"


async def test_a_run_goes_on_when_its_edge_ends(remote: Remote, name: str, tmp_path: Path) -> None:
    """And the next edge waits for it; it is not done twice."""
    answer = asyncio.Event()
    database = f"sqlite:///{tmp_path}/test.db"
    async with remote.model(chooses("ask"), says("At last.", after=answer)) as model:
        async with serving(database, graph_url=remote.server.url) as edge:
            asking = asyncio.create_task(edge.session(name).user("Think"))
            await model.received(2)
            await edge.kill()
            await asyncio.wait([asking])
            asking.exception()
        async with serving(database, graph_url=remote.server.url) as edge:
            joining = asyncio.create_task(edge.http.get(f"/sessions/{name}/stream"))
            answer.set()
            assert chunks_of(await joining)[-1] == text("At last.")
            assert told(await edge.session(name).history()) == [("user", "Think"), ("assistant", "At last.")]
        assert len(model.requests) == 2


async def test_a_run_can_be_cancelled_in_the_next_edge(remote: Remote, name: str, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    async with remote.model(chooses("ask"), hangs(), says("Here I am.")) as model:
        async with serving(database, graph_url=remote.server.url, shutdown_seconds="0") as edge:
            asking = asyncio.create_task(edge.session(name).user("Think"))
            await model.received(2)
            await edge.kill(signal.SIGTERM)
            await asyncio.wait([asking])
            asking.exception()
        async with serving(database, graph_url=remote.server.url) as edge:
            joining = asyncio.create_task(edge.http.get(f"/sessions/{name}/stream"))
            (await edge.http.post(f"/sessions/{name}/cancel")).raise_for_status()
            assert chunks_of(await joining)[-1]["metadata"]["code"] == "cancelled"
            assert await edge.session(name).user("Hello?") == [text("Here I am.")]


async def test_the_server_ends_and_starts_again(remote: Remote, name: str, tmp_path: Path) -> None:
    """It keeps its threads, and takes its runs up: a stream goes on where it was."""
    model = remote.model(calls("write_file", path="a.py", content="x"), hangs(), says("At last."), says("Written."))
    async with model, service(None, remote.settings(tmp_path)) as client:
        paused, running = client.session(name), client.session(f"{name}-2")
        await paused.switch("coder", content="Write a.py")
        asking = asyncio.create_task(running.switch("ask", content="Think"))
        await model.received(2)
        await asyncio.to_thread(remote.server.end)
        (failed,) = await paused.result("written")
        assert (failed["metadata"]["code"], failed["error"]) == ("internal", str(GraphUnavailable()))
        assert (await client.http.get(f"/sessions/{name}/history")).status_code == 503
        await asyncio.to_thread(remote.server.start)
        assert (await asking)[-1] == text("At last.")
        assert await paused.result("written") == [text("Written.")]


async def test_the_server_is_killed(remote: Remote, name: str, tmp_path: Path) -> None:
    """It stores its memory every ten seconds only: what it forgot is done again before the next message."""
    model = remote.model(hangs(), otherwise=lambda _: says("Here I am."))
    async with model, service(None, remote.settings(tmp_path)) as client:
        session = client.session(name)
        asking = asyncio.create_task(session.switch("ask", content="Think"))
        await model.received(1)
        await asyncio.to_thread(remote.server.end, signal.SIGKILL)
        await asyncio.to_thread(remote.server.start)
        await asking  # an error, or the answer if it was not forgotten
        assert await session.user("Hello?") == [text("Here I am.")]
        heard, said = ("user", "Think"), ("assistant", "Here I am.")
        assert told(await session.history()) == [heard, said, ("user", "Hello?"), said]


async def test_taking_back_and_copying(remote: Remote, name: str, tmp_path: Path) -> None:
    model = remote.model(says("One."), says("Two."), says("Three."), says("Four."))
    async with model, service(None, remote.settings(tmp_path)) as client:
        session = client.session(name)
        await session.switch("ask", content="First")
        await session.user("Second")
        copy = (await client.http.post(f"/sessions/{name}/fork", json={"turn": 1})).raise_for_status().json()
        undone = (await client.http.post(f"/sessions/{name}/undo")).raise_for_status().json()
        assert (undone["undone"], undone["message_count"], undone["current_agent"]) == ("Second", 2, "ask")
        for each, content, answer in ((session, "Third", "Three."), (client.session(copy["session_id"]), "4", "Four.")):
            assert await each.user(content) == [text(answer)]
            said = [("user", "First"), ("assistant", "One."), ("user", content), ("assistant", answer)]
            assert told(await each.history()) == said
            assert (await each.get("/sessions/{id}/view"))["message_count"] == 4


async def test_deleting(remote: Remote, name: str, tmp_path: Path) -> None:
    # The last one: langgraph dev stores no more of its threads' pauses after it has deleted one.
    model = remote.model(says("Hello."), says("Who are you?"), says("And you?"))
    async with model, service(None, remote.settings(tmp_path)) as client:
        session = client.session(name)
        for how, answer in (({}, "Hello."), ({"hard": True}, "Who are you?")):
            await session.switch("ask", content="Hello")
            assert told(await session.history()) == [("user", "Hello"), ("assistant", answer)]
            (await client.http.delete(f"/sessions/{name}", params=how)).raise_for_status()
        async with get_client(url=remote.server.url) as langgraph:
            with pytest.raises(NotFoundError):
                await langgraph.threads.get(derive_thread_id(name))


def unremembered(approval: dict[str, Any]) -> dict[str, Any]:
    return {**approval, "metadata": {k: v for k, v in approval["metadata"].items() if k != "remember"}}


def told(history: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Who said what; the arguments of a call that nothing was said with."""
    return [(each["role"], each["content"] or each["tool_calls"][0]["function"]["arguments"]) for each in history]
