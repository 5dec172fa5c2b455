"""LangGraph Studio works with a real `langgraph dev`, offline and without a key."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from graph.studio import graph
from tests.support.langgraph_dev import start_langgraph_dev
from tests.support.service import agent_switch_chunk, text_chunk, tool_call_chunk, write_approval_chunk

CREATE_MESSAGE = {"type": "user_message", "content": "create hello.py that prints hi"}
APPROVAL_REQUEST = write_approval_chunk("hello.py", 'print("hi")\n')
APPROVED_CALL = tool_call_chunk("write_file", path="hello.py", content='print("hi")\n')


@dataclass(frozen=True)
class Studio:
    url: str
    log: Path

    @asynccontextmanager
    async def open_thread(self) -> AsyncIterator["StudioThread"]:
        async with get_client(url=self.url) as client:
            yield StudioThread(client, (await client.threads.create())["thread_id"])


@dataclass(frozen=True)
class StudioThread:
    client: LangGraphClient
    id: str

    async def send_message(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        return await self._stream_run(input={"message": message})

    async def send_answer(self, said: Any) -> list[dict[str, Any]]:
        """Resume the thread as Studio does, without the id of an interrupt."""
        return await self._stream_run(command={"resume": said})

    async def _stream_run(self, **how: Any) -> list[dict[str, Any]]:
        """Return the chunks of a run, without those that a client must opt in to."""
        stream = self.client.runs.stream(self.id, "agent", stream_mode=["custom"], **how)
        events = [part.data async for part in stream if part.event != "metadata"]
        return [{k: v for k, v in chunk.items() if v is not None} for chunk in events if chunk.get("type") != "usage"]

    async def fetch_interrupts(self) -> list[dict[str, Any]]:
        """Return the calls that the pauses show."""
        tasks = (await self.client.threads.get_state(self.id))["tasks"]
        return [call for task in tasks for pause in task["interrupts"] for call in pause["value"]]

    async def fetch_messages(self) -> list[tuple[str, str]]:
        values: Any = (await self.client.threads.get_state(self.id))["values"]
        return [(message["type"], message["content"]) for message in values["messages"]]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with start_langgraph_dev(tmp_path_factory.mktemp("studio"), context_tokens="4000") as server:
        yield Studio(server.url, server.log)


async def test_studio_draws_the_graph(studio: Studio) -> None:
    async with get_client(url=studio.url) as client:
        drawn: Any = await client.assistants.get_graph("agent")
    edges = [(edge["source"], edge["target"], edge.get("conditional", False)) for edge in drawn["edges"]]
    picture = graph.get_graph()
    assert {node["id"] for node in drawn["nodes"]} == set(picture.nodes)
    assert sorted(edges) == sorted((edge.source, edge.target, edge.conditional) for edge in picture.edges)


async def test_input_schema_offers_user_message_and_switch(studio: Studio) -> None:
    async with get_client(url=studio.url) as client:
        (assistant,) = await client.assistants.search()
        schema: Any = (await client.assistants.get_schemas(assistant["assistant_id"]))["input_schema"]
    assert schema["properties"]["message"]["anyOf"][:2] == [
        {"$ref": "#/$defs/UserMessage"},
        {"$ref": "#/$defs/SwitchAgent"},
    ]


async def test_write_is_approved_with_gateway_messages(studio: Studio) -> None:
    async with studio.open_thread() as thread:
        assert await thread.send_message(CREATE_MESSAGE) == [
            agent_switch_chunk("orchestrator", "coder", 'The request wants something made or changed ("create").'),
            text_chunk("I will create hello.py.", is_final=False),
            APPROVAL_REQUEST,
        ]
        assert await thread.fetch_interrupts() == [APPROVAL_REQUEST]
        assert await thread.send_answer({"type": "hitl_decision", "call_id": "call_1", "decision": "approve"}) == [
            APPROVED_CALL
        ]
        assert await thread.fetch_interrupts() == [APPROVED_CALL]
        assert await thread.send_answer({"type": "tool_result", "call_id": "call_1", "result": "written"}) == [
            text_chunk("Created hello.py.", metadata={"completion": True})
        ]
        assert await thread.fetch_interrupts() == []


async def test_edited_call_replaces_the_proposed_one(studio: Studio) -> None:
    edit = {"type": "hitl_decision", "call_id": "call_1", "decision": "edit", "modified_arguments": {"path": "b.py"}}
    async with studio.open_thread() as thread:
        await thread.send_message(CREATE_MESSAGE)
        await thread.send_answer(edit)
        assert [kind for kind, _ in await thread.fetch_messages()] == ["human", "ai"]


async def test_invalid_answers_leave_the_pause_open(studio: Studio) -> None:
    wrong: list[tuple[Any, str]] = [
        ({"type": "tool_result", "call_id": "call_9", "result": "written"}, "call_not_open"),
        ({"type": "hitl_decision", "call_id": "call_1", "decision": "perhaps"}, "invalid_decision"),
        ("yes", "invalid_message"),
    ]
    async with studio.open_thread() as thread:
        await thread.send_message(CREATE_MESSAGE)
        for said, code in wrong:
            (told,) = await thread.send_answer(said)
            assert (told["type"], told["metadata"]) == ("error", {"code": code})
            assert await thread.fetch_interrupts() == [APPROVAL_REQUEST]


async def test_a_message_during_a_pause_closes_the_call(studio: Studio) -> None:
    async with studio.open_thread() as thread:
        await thread.send_message(CREATE_MESSAGE)
        await thread.send_message({"type": "switch_agent", "agent_type": "ask"})
        assert await thread.fetch_interrupts() == []
        assert await thread.fetch_messages() == [
            ("human", "create hello.py that prints hi"),
            ("ai", "I will create hello.py."),
            ("tool", "cancelled: the user went on"),
        ]


async def test_invalid_message_leaves_no_unanswered_call(studio: Studio) -> None:
    async with studio.open_thread() as thread:
        await thread.send_message(CREATE_MESSAGE)
        (told,) = await thread.send_message({"type": "nonsense"})
        assert told["metadata"] == {"code": "invalid_message"}
        waits = bool(await thread.fetch_interrupts())
        assert waits is not any(kind == "tool" for kind, _ in await thread.fetch_messages())


async def test_event_loop_is_never_blocked(studio: Studio) -> None:
    async with studio.open_thread() as thread:
        await thread.send_message(CREATE_MESSAGE)
    log = studio.log.read_text()
    assert "Blocking" not in log
    assert [line for line in log.splitlines() if '"level":"error"' in line.replace(" ", "")] == []


async def test_long_conversation_is_summarised_in_studio(studio: Studio) -> None:
    async with studio.open_thread() as thread:
        for number in range(12):
            await thread.send_message({"type": "user_message", "content": f"hello {number}, {'how are you, ' * 60}"})
        values: Any = (await thread.client.threads.get_state(thread.id))["values"]
    memory = values["memory"]
    assert memory["summary"].startswith("- hello 0, how are you")
    assert 0 < memory["upto"] == memory["start"] < len(values["messages"]) == 24
