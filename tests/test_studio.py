"""LangGraph Studio's side: a real `langgraph dev`, spoken to as Studio does, offline and without a key."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from graph.studio import graph
from tests.langgraph_dev import langgraph_dev
from tests.service import switched, text, tool_call, write_approval

pytestmark = pytest.mark.anyio

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
    with langgraph_dev(tmp_path_factory.mktemp("studio"), context_tokens="4000") as server:
        yield Studio(server.url, server.log)


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
            switched("orchestrator", "coder", 'The request wants something made or changed ("create").'),
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


async def test_an_edited_call_takes_the_place_of_the_one_that_was_asked_for(studio: Studio) -> None:
    edit = {"type": "hitl_decision", "call_id": "call_1", "decision": "edit", "modified_arguments": {"path": "b.py"}}
    async with studio.thread() as thread:
        await thread.say(CREATE)
        await thread.answer(edit)
        assert [kind for kind, _ in await thread.messages()] == ["human", "ai"]


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


async def test_a_long_conversation_is_summarised_there_as_well(studio: Studio) -> None:
    async with studio.thread() as thread:
        for number in range(12):
            await thread.say({"type": "user_message", "content": f"hello {number}, {'how are you, ' * 60}"})
        values: Any = (await thread.client.threads.get_state(thread.id))["values"]
    memory = values["memory"]
    assert memory["summary"].startswith("- hello 0, how are you")
    assert 0 < memory["upto"] == memory["start"] < len(values["messages"]) == 24
