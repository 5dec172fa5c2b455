"""LangGraph Studio's side: a real `langgraph dev`, spoken to as Studio does, offline and without a key."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from graph.studio import graph
from tests.service import switched, text, tool_call, write_approval

pytestmark = pytest.mark.anyio

PROJECT = Path(__file__).parent.parent
CREATE = {"type": "user_message", "content": "create hello.py that prints hi"}
ASKED = write_approval("hello.py", 'print("hi")\n')
APPROVED = tool_call("write_file", path="hello.py", content='print("hi")\n')


@dataclass(frozen=True)
class Studio:
    url: str
    log: Path

    @asynccontextmanager
    async def thread(self) -> AsyncIterator["Thread"]:
        async with get_client(url=self.url) as client:
            yield Thread(client, (await client.threads.create())["thread_id"])


@dataclass(frozen=True)
class Thread:
    client: LangGraphClient
    id: str

    async def say(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        return await self._run(input={"message": message})

    async def answer(self, said: Any) -> list[dict[str, Any]]:
        """As Studio does: a plain resume, which names no interrupt."""
        return await self._run(command={"resume": said})

    async def _run(self, **how: Any) -> list[dict[str, Any]]:
        """The chunks of the run, without what a client had to opt in to."""
        stream = self.client.runs.stream(self.id, "agent", stream_mode=["custom"], **how)
        events = [part.data async for part in stream if part.event != "metadata"]
        return [{k: v for k, v in chunk.items() if v is not None} for chunk in events if chunk.get("type") != "usage"]

    async def waits_for(self) -> list[dict[str, Any]]:
        """What the pauses show."""
        tasks = (await self.client.threads.get_state(self.id))["tasks"]
        return [call for task in tasks for pause in task["interrupts"] for call in pause["value"]]

    async def messages(self) -> list[tuple[str, str]]:
        values: Any = (await self.client.threads.get_state(self.id))["values"]
        return [(message["type"], message["content"]) for message in values["messages"]]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """It keeps files in the folder that it runs in, so that is not the project's."""
    folder = tmp_path_factory.mktemp("studio")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    started = Studio(f"http://127.0.0.1:{port}", folder / "log")
    with _langgraph_dev(folder, port, started.log):
        with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as patient:
            patient.get(f"{started.url}/ok").raise_for_status()
        yield started


@contextmanager
def _langgraph_dev(folder: Path, port: int, log: Path) -> Iterator[None]:
    config = json.loads((PROJECT / "langgraph.json").read_text())
    (folder / "langgraph.json").write_text(json.dumps(_from_anywhere(config)))
    command = [str(Path(sys.executable).with_name("langgraph")), "dev", "--no-browser", "--no-reload"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--config", "langgraph.json"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _from_anywhere(config: dict[str, Any]) -> dict[str, Any]:
    graphs = {name: str(PROJECT / place) for name, place in config["graphs"].items()}
    return {**config, "dependencies": [str(PROJECT / place) for place in config["dependencies"]], "graphs": graphs}


def _environment() -> dict[str, str]:
    """Nothing that a developer has set, no key, nothing sent to anyone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENT_RUNTIME__", "LANG"))}
    return {**kept, "LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1", "LOG_JSON": "true"}


async def test_the_picture_is_that_of_the_graph(studio: Studio) -> None:
    async with get_client(url=studio.url) as client:
        drawn: Any = await client.assistants.get_graph("agent")
    edges = [(edge["source"], edge["target"], edge.get("conditional", False)) for edge in drawn["edges"]]
    picture = graph.get_graph()
    assert {node["id"] for node in drawn["nodes"]} == set(picture.nodes)
    assert sorted(edges) == sorted((edge.source, edge.target, edge.conditional) for edge in picture.edges)


async def test_the_input_form_offers_what_starts_a_turn(studio: Studio) -> None:
    async with get_client(url=studio.url) as client:
        (assistant,) = await client.assistants.search()
        schema: Any = (await client.assistants.get_schemas(assistant["assistant_id"]))["input_schema"]
    assert schema["properties"]["message"]["anyOf"][:2] == [
        {"$ref": "#/$defs/UserMessage"},
        {"$ref": "#/$defs/SwitchAgent"},
    ]


async def test_a_write_is_approved_and_carried_out_in_the_gateways_own_json(studio: Studio) -> None:
    async with studio.thread() as thread:
        assert await thread.say(CREATE) == [
            switched("orchestrator", "coder", 'The request says "create".'),
            text("I will create hello.py.", is_final=False),
            ASKED,
        ]
        assert await thread.waits_for() == [ASKED]
        assert await thread.answer({"type": "hitl_decision", "call_id": "call_1", "decision": "approve"}) == [APPROVED]
        assert await thread.waits_for() == [APPROVED]
        assert await thread.answer({"type": "tool_result", "call_id": "call_1", "result": "written"}) == [
            text("Created hello.py.", metadata={"completion": True})
        ]
        assert await thread.waits_for() == []


async def test_answers_that_fit_no_call_leave_the_pause_open(studio: Studio) -> None:
    wrong: list[tuple[Any, str]] = [
        ({"type": "tool_result", "call_id": "call_9", "result": "written"}, "call_not_open"),
        ({"type": "hitl_decision", "call_id": "call_1", "decision": "perhaps"}, "invalid_decision"),
        ("yes", "invalid_message"),
    ]
    async with studio.thread() as thread:
        await thread.say(CREATE)
        for said, code in wrong:
            (told,) = await thread.answer(said)
            assert (told["type"], told["metadata"]) == ("error", {"code": code})
            assert await thread.waits_for() == [ASKED]


async def test_a_message_during_a_pause_closes_the_call(studio: Studio) -> None:
    async with studio.thread() as thread:
        await thread.say(CREATE)
        await thread.say({"type": "switch_agent", "agent_type": "ask"})
        assert await thread.waits_for() == []
        assert await thread.messages() == [
            ("human", "create hello.py that prints hi"),
            ("ai", "I will create hello.py."),
            ("tool", "cancelled: the user went on"),
        ]


async def test_a_message_that_cannot_be_taken_leaves_no_call_without_an_answer(studio: Studio) -> None:
    async with studio.thread() as thread:
        await thread.say(CREATE)
        (told,) = await thread.say({"type": "nonsense"})
        assert told["metadata"] == {"code": "invalid_message"}
        waits = bool(await thread.waits_for())
        assert waits is not any(kind == "tool" for kind, _ in await thread.messages())


async def test_nothing_blocks_its_event_loop(studio: Studio) -> None:
    async with studio.thread() as thread:
        await thread.say(CREATE)
    log = studio.log.read_text()
    assert "Blocking" not in log
    assert [line for line in log.splitlines() if '"level":"error"' in line.replace(" ", "")] == []
