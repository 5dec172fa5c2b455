"""Conversations that outgrow what a model is sent: through the front door, with a model that also keeps the summary."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import BaseMessage

from graph.context.summaries import RETRY_AFTER_MESSAGES, Summarizer
from graph.context.token_count import estimate_message_tokens, estimate_overhead
from graph.context.window import OMISSION_NOTE, SUMMARY_NOTE, strip_service_note
from graph.errors import LLMUnavailable
from graph.settings import Settings
from prompts import AGENTS
from server import create_app
from tests.scripted import Held, Line, ScriptedModel, asks, calls, chooses, model, says
from tests.service import Session, given, service, settings_for, text
from tests.test_properties import check_sent_to_the_model, check_sound
from tests.test_rewinding import undone

pytestmark = pytest.mark.anyio

BUDGET = 8_000
SMALL = {"context_tokens": BUDGET, "log_level": "CRITICAL"}
FILE = "VALUE = 1\n" * 90


def check_all_fit(llm: ScriptedModel) -> None:
    """Each call of the ask agent, and each of the summary."""
    agent = AGENTS["ask"]
    assert any(heard[0].content == agent.prompt for heard in llm.heard)
    for heard in llm.heard:
        check_sent_to_the_model(heard)
        if heard[0].content == agent.prompt:
            assert estimate_overhead(agent) + sum(map(estimate_message_tokens, heard[1:])) <= BUDGET  # type: ignore[arg-type]
    for heard in llm.summarized:
        assert sum(map(estimate_message_tokens, heard)) <= BUDGET  # type: ignore[arg-type]


def told(heard: list[BaseMessage]) -> str:
    """The summary that a model was sent, without its quotation marks; empty if there is none."""
    opening = str(heard[1].content)
    lines = opening.split("\n") if opening.startswith(SUMMARY_NOTE) else []
    return "\n".join(line.removeprefix("> ") for line in lines if line.startswith("> "))


def material(summarized: list[BaseMessage]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in str(summarized[1].content).split("\n")]


def turns(numbers: Iterable[int]) -> list[Line]:
    """What the model says in turns that read one file each."""
    return [
        line for n in numbers for line in (calls("read_file", path=f"{n}.py", call_id=f"call_{n}"), says(f"Read {n}."))
    ]


async def read(session: Session, numbers: Iterable[int]) -> None:
    for n in numbers:
        await session.user(f"Read {n}.py")
        assert await session.result(FILE, call_id=f"call_{n}") == [text(f"Read {n}.")]


async def test_fifty_turns_in_a_small_window(database: str) -> None:
    llm = model(chooses("ask"), *turns(range(50)), summaries=[says(f"Summary {n}.") for n in range(9)])
    async with service(llm, settings_for(database, **SMALL)) as client:
        session = client.session()
        await read(session, range(50))
        history = await session.history()
        exported = await session.get("/sessions/{id}/export")
    check_all_fit(llm)
    summaries = [material(each) for each in llm.summarized]
    assert 2 <= len(summaries) <= 5
    assert summaries[0][0] == {"from": "user", "text": "Read 0.py"}
    assert [each[0] for each in summaries[1:]] == [
        {"summary so far": f"Summary {n}."} for n in range(len(summaries) - 1)
    ]
    requests = [line["text"] for each in summaries for line in each if line.get("from") == "user"]
    assert requests == [f"Read {n}.py" for n in range(len(requests))]
    assert [told(heard) for heard in llm.heard][-1] == f"Summary {len(summaries) - 1}."
    assert not any(str(heard[1].content).startswith(OMISSION_NOTE) for heard in llm.heard)
    assert [message["content"] for message in history if message["role"] == "user"] == [
        f"Read {n}.py" for n in range(50)
    ]
    assert [message["content"] for message in history if message["role"] == "tool"] == [FILE] * 50
    assert check_sound(history) == []
    assert exported["messages"] == history

    later = model(*turns(range(50, 52)), calls("read_file", path="a.py", call_id="call_0"))
    async with service(later, settings_for(database, **SMALL)) as client:
        await read(client.session(), range(50, 52))
        (again,) = await client.session().user("Once more")
        assert check_sound(await client.session().history()) == [again["call_id"]]
    check_all_fit(later)
    assert later.summarized == []
    assert told(later.heard[0]) == f"Summary {len(summaries) - 1}."
    assert strip_service_note(str(later.heard[0][-1].content)) == "Read 50.py"


async def test_a_turn_does_not_wait_for_the_summary_and_only_one_is_made_at_a_time(tmp_path: Path) -> None:
    held = Held(says("Read them."))
    llm = model(chooses("ask"), *turns(range(40)), summaries=[held, says("Read more.")])
    async with service(llm, settings_for(tmp_path, **SMALL)) as client:
        await read(client.session(), range(30))
        assert len(llm.summarized) == 1
        assert not any(told(heard) for heard in llm.heard)
        assert str(llm.heard[-1][1].content).startswith(OMISSION_NOTE)
        held.release.set()
        await read(client.session(), range(30, 40))
    check_all_fit(llm)
    assert {told(heard) for heard in llm.heard[-8:]} == {"Read more."}
    assert material(llm.summarized[1])[0] == {"summary so far": "Read them."}


async def test_a_service_that_ends_does_not_wait_for_a_summary(tmp_path: Path) -> None:
    llm = model(chooses("ask"), *turns(range(21)), summaries=[Held(says("Never.")), says("Read them.")])
    async with service(llm, settings_for(tmp_path, **SMALL)) as client:
        await read(client.session(), range(20))
        assert len(llm.summarized) == 1
    assert "summary" not in {task.get_name() for task in asyncio.all_tasks()}
    async with service(llm, settings_for(tmp_path, **SMALL)) as client:
        await read(client.session(), [20])
    assert len(llm.summarized) == 2


@pytest.mark.parametrize("failure", [LLMUnavailable("It is down."), RuntimeError("It broke."), says(" ")])
async def test_a_summary_that_fails_is_tried_again_after_a_while_and_fails_no_turn(
    tmp_path: Path, failure: Line
) -> None:
    llm = model(chooses("ask"), *turns(range(40)), summaries=[failure, failure, says("Read them."), says("More.")])
    async with service(llm, settings_for(tmp_path, **SMALL)) as client:
        await read(client.session(), range(40))
    check_all_fit(llm)
    first, second, third = [len(material(each)) for each in llm.summarized[:3]]
    assert (second - first, third - second) >= (RETRY_AFTER_MESSAGES - 2, RETRY_AFTER_MESSAGES - 2)
    assert [*dict.fromkeys(told(heard) for heard in llm.heard)] == ["", "Read them.", "More."]
    assert any(str(heard[1].content).startswith(OMISSION_NOTE) for heard in llm.heard)


async def test_a_summary_that_is_too_long_is_cut(tmp_path: Path) -> None:
    llm = model(chooses("ask"), *turns(range(30)), summaries=[says("word " * 9_000)] * 3)
    async with service(llm, settings_for(tmp_path, **SMALL)) as client:
        await read(client.session(), range(30))
    check_all_fit(llm)
    before = material(llm.summarized[1])[0]["summary so far"]
    assert len(before) <= BUDGET // 10 * 3
    assert before.startswith("word word")


async def test_what_it_costs_is_told_when_it_is_used(tmp_path: Path) -> None:
    summary = says("Read them.")
    summary.usage_metadata = {"input_tokens": 70, "output_tokens": 20, "total_tokens": 90}
    llm = model(chooses("ask"), *turns(range(20)), summaries=[summary])
    async with service(llm, settings_for(tmp_path, **SMALL)) as client:
        await read(client.session(), range(20))
        spent = (await client.session().get("/sessions/{id}/usage"))["purposes"]["summary"]
    assert (spent["model_calls"], spent["total_tokens"]) == (1, 90)


async def test_one_endless_turn_with_parallel_calls(tmp_path: Path) -> None:
    def step(n: int) -> Line:
        wanted = [("read_file", f"call_{n}_{i}", json.dumps({"path": f"{n}/{i}.py"})) for i in range(3)]
        return asks(*wanted, text=f"Step {n}.")

    llm = model(
        chooses("ask"), *map(step, range(40)), says("Done."), summaries=[says(f"Summary {n}.") for n in range(9)]
    )
    async with service(llm, settings_for(tmp_path, **SMALL)) as client:
        session = client.session(parallel_tools=True)
        await session.user("Read all of it.")
        for n in range(40):
            for i in range(3):
                chunks = await session.result(FILE, call_id=f"call_{n}_{i}")
        assert chunks[-1] == text("Done.")
        assert len(await session.history()) == 1 + 40 * 4 + 1
        assert (await undone(session))["undone"] == "Read all of it."
        after = model(chooses("ask"), says("Hello."))
    check_all_fit(llm)
    assert {strip_service_note(str(heard[1].content)) for heard in llm.heard[1:]} == {"Read all of it."}
    assert told(llm.heard[-1]).startswith("Summary ")
    async with service(after, settings_for(tmp_path, **SMALL)) as client:
        await client.session().user("Hello")
    assert [message.content for message in after.heard[-1][1:]] == ["Hello"]


async def test_one_giant_result_is_shortened_for_the_model_alone(tmp_path: Path) -> None:
    llm = model(chooses("ask"), calls("read_file", path="a.py"), says("It is long."))
    async with service(llm, settings_for(tmp_path, **SMALL)) as client:
        session = client.session()
        await session.user("Read a.py")
        assert await session.result("x" * 900_000) == [text("It is long.")]
        assert (await session.history())[2]["content"] == "x" * 900_000
    check_all_fit(llm)
    assert (llm.summarized, llm.heard[-1][1].content) == ([], "Read a.py")
    result = str(llm.heard[-1][-1].content)
    assert result.startswith("xxx")
    assert result.endswith("xxx")
    assert "characters left out" in result
    assert len(result) > BUDGET


async def test_undo_keeps_a_summary_that_knows_nothing_of_it_and_drops_one_that_does(tmp_path: Path) -> None:
    llm = model(
        chooses("ask"), *turns(range(20)), *turns(range(19, 21)), summaries=[says("Read them."), says("Again.")]
    )
    async with service(llm, settings_for(tmp_path, **SMALL)) as client:
        session = client.session()
        await read(session, range(20))
        assert told(llm.heard[-1]) == "Read them."
        last = len([line for line in material(llm.summarized[0]) if line["from"] == "user"])
        await undone(session)
        await read(session, [19])
        assert told(llm.heard[-1]) == "Read them."
        copy = (await client.http.post("/sessions/s-1/fork", json={})).json()["session_id"]
        for _ in range(20 - last):
            await undone(session)
        llm.lines = iter([says("Kept.")])
        await session.user("Hello")
        assert told(llm.heard[-1]) == "Read them."
        await undone(session)
        await undone(session)
        llm.lines = iter([says("Dropped."), says("Copied.")])
        await session.user("Hello")
        assert told(llm.heard[-1]) == ""
        assert str(llm.heard[-1][1].content) == "Read 0.py"
        await client.session(copy).user("Hello")
        assert told(llm.heard[-1]) == "Read them."
    check_all_fit(llm)


async def test_a_summary_of_what_was_taken_back_meanwhile_is_thrown_away(tmp_path: Path) -> None:
    held = Held(says("Read them."))
    llm = model(chooses("ask"), *turns(range(16)), summaries=[held])
    async with service(llm, settings_for(tmp_path, **SMALL)) as client:
        session = client.session()
        done = 0
        while not llm.summarized:
            await read(session, [done])
            done += 1
        for _ in range(done):
            await undone(session)
        held.release.set()
        llm.lines = iter([chooses("ask"), *turns(range(100, 130))])
        llm.summaries = iter([says("Read others.")] * 9)
        await read(session, range(100, 130))
    check_all_fit(llm)
    assert {told(heard) for heard in llm.heard} == {"", "Read others."}


async def test_a_pruned_thread_keeps_its_summary(database: str) -> None:
    llm = model(chooses("ask"), *turns(range(18)), summaries=[says("Read them.")])
    app = create_app(settings_for(database, prune_after_runs=1, **SMALL), given(llm))
    async with service(None, settings_for(database), app) as client:
        await read(client.session(), range(16))
        await app.state.janitor.prune()
        await read(client.session(), range(16, 18))
        assert len(await client.session().history()) == 18 * 4
    assert told(llm.heard[-1]) == "Read them."
    assert len(llm.summarized) == 1


async def test_the_offline_model_understands_requests_under_a_summary(tmp_path: Path) -> None:
    async with service(None, settings_for(tmp_path, **SMALL)) as client:
        session = client.session()
        for n in range(10):
            chunks = await session.user(f"read {n}.py, {'please, ' * 1_000}")
            assert chunks[-1]["arguments"] == {"path": f"{n}.py"}
            chunks = await session.result(FILE, call_id=chunks[-1]["call_id"])
            assert chunks[-1]["type"] == "assistant_message"
        assert len(await session.history()) == 40


def test_a_budget_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 4000"):
        Settings(_env_file=None, context_tokens=3_999)
    talkative = AGENTS["coder"].model_copy(update={"prompt": "word " * 1_000})
    with pytest.raises(ValueError, match=r"AGENT_RUNTIME__CONTEXT_TOKENS: the coder agent .* needs \d+ or more\."):
        Summarizer(model(), 4_000).validate_agents({"coder": talkative})
    Summarizer(model(), 4_000).validate_agents(AGENTS)
