"""A conversation that outgrows its window goes on with a summary, which a model makes in the background."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import BaseMessage

from graph.context.summaries import RETRY_AFTER_MESSAGES, Summarizer
from graph.context.token_count import estimate_overhead
from graph.context.window import OMISSION_NOTE, SUMMARY_NOTE, strip_service_note
from graph.errors import LLMUnavailable
from graph.settings import Settings
from graph.usage.tokens import estimate_tokens
from prompts import AGENTS
from server import create_app
from tests.support.conversations import check_conversation, check_model_input
from tests.support.rewind import undo_last_turn
from tests.support.scripted import (
    DeferredReply,
    ScriptedModel,
    ScriptLine,
    call_tool,
    call_tools,
    choose_agent,
    make_model,
    say_text,
)
from tests.support.service import SessionClient, provide_model, settings_for, start_service, text_chunk

CONTEXT_BUDGET = 8_000
SMALL_WINDOW = {"context_tokens": CONTEXT_BUDGET, "log_level": "CRITICAL"}
FILE_CONTENT = "VALUE = 1\n" * 90


def check_all_fit(llm: ScriptedModel) -> None:
    """Check that every request of the ask agent and of the summary fits the window."""
    agent = AGENTS["ask"]
    assert any(heard[0].content == agent.prompt for heard in llm.prompts)
    for heard in llm.prompts:
        check_model_input(heard)
        if heard[0].content == agent.prompt:
            assert estimate_overhead(agent) + estimate_tokens(*heard[1:]) <= CONTEXT_BUDGET
    for heard in llm.summary_prompts:
        assert estimate_tokens(*heard) <= CONTEXT_BUDGET


def extract_summary(heard: list[BaseMessage]) -> str:
    """Return the summary that a model was sent, without its quotation marks; empty if there is none."""
    opening = str(heard[1].content)
    lines = opening.split("\n") if opening.startswith(SUMMARY_NOTE) else []
    return "\n".join(line.removeprefix("> ") for line in lines if line.startswith("> "))


def parse_transcript(summarized: list[BaseMessage]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in str(summarized[1].content).split("\n")]


def script_turns(numbers: Iterable[int]) -> list[ScriptLine]:
    """Return the model's lines for turns that read one file each."""
    return [
        line
        for n in numbers
        for line in (call_tool("read_file", path=f"{n}.py", call_id=f"call_{n}"), say_text(f"Read {n}."))
    ]


async def read_files(session: SessionClient, numbers: Iterable[int]) -> None:
    for n in numbers:
        await session.send_text(f"Read {n}.py")
        assert await session.send_result(FILE_CONTENT, call_id=f"call_{n}") == [text_chunk(f"Read {n}.")]


async def test_fifty_turns_fit_a_small_window(database: str) -> None:
    llm = make_model(
        choose_agent("ask"), *script_turns(range(50)), summaries=[say_text(f"Summary {n}.") for n in range(9)]
    )
    async with start_service(llm, settings_for(database, **SMALL_WINDOW)) as client:
        session = client.open_session()
        await read_files(session, range(50))
        history = await session.fetch_history()
        exported = await session.get("/sessions/{id}/export")
    check_all_fit(llm)
    summaries = [parse_transcript(each) for each in llm.summary_prompts]
    assert 2 <= len(summaries) <= 5
    assert summaries[0][0] == {"from": "user", "text": "Read 0.py"}
    assert [each[0] for each in summaries[1:]] == [
        {"summary so far": f"Summary {n}."} for n in range(len(summaries) - 1)
    ]
    requests = [line["text"] for each in summaries for line in each if line.get("from") == "user"]
    assert requests == [f"Read {n}.py" for n in range(len(requests))]
    assert [extract_summary(heard) for heard in llm.prompts][-1] == f"Summary {len(summaries) - 1}."
    assert not any(str(heard[1].content).startswith(OMISSION_NOTE) for heard in llm.prompts)
    assert [message["content"] for message in history if message["role"] == "user"] == [
        f"Read {n}.py" for n in range(50)
    ]
    assert [message["content"] for message in history if message["role"] == "tool"] == [FILE_CONTENT] * 50
    assert check_conversation(history) == []
    assert exported["messages"] == history

    later = make_model(*script_turns(range(50, 52)), call_tool("read_file", path="a.py", call_id="call_0"))
    async with start_service(later, settings_for(database, **SMALL_WINDOW)) as client:
        await read_files(client.open_session(), range(50, 52))
        (again,) = await client.open_session().send_text("Once more")
        assert check_conversation(await client.open_session().fetch_history()) == [again["call_id"]]
    check_all_fit(later)
    assert later.summary_prompts == []
    assert extract_summary(later.prompts[0]) == f"Summary {len(summaries) - 1}."
    assert strip_service_note(str(later.prompts[0][-1].content)) == "Read 50.py"


async def test_turn_does_not_wait_and_one_summary_is_made_at_a_time(tmp_path: Path) -> None:
    held = DeferredReply(say_text("Read them."))
    llm = make_model(choose_agent("ask"), *script_turns(range(40)), summaries=[held, say_text("Read more.")])
    async with start_service(llm, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        await read_files(client.open_session(), range(30))
        assert len(llm.summary_prompts) == 1
        assert not any(extract_summary(heard) for heard in llm.prompts)
        assert str(llm.prompts[-1][1].content).startswith(OMISSION_NOTE)
        held.release.set()
        await read_files(client.open_session(), range(30, 40))
    check_all_fit(llm)
    assert {extract_summary(heard) for heard in llm.prompts[-8:]} == {"Read more."}
    assert parse_transcript(llm.summary_prompts[1])[0] == {"summary so far": "Read them."}


async def test_shutdown_does_not_wait_for_a_summary(tmp_path: Path) -> None:
    llm = make_model(
        choose_agent("ask"),
        *script_turns(range(21)),
        summaries=[DeferredReply(say_text("Never.")), say_text("Read them.")],
    )
    async with start_service(llm, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        await read_files(client.open_session(), range(20))
        assert len(llm.summary_prompts) == 1
    assert "summary" not in {task.get_name() for task in asyncio.all_tasks()}
    async with start_service(llm, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        await read_files(client.open_session(), [20])
    assert len(llm.summary_prompts) == 2


@pytest.mark.parametrize(
    "failure", [LLMUnavailable("It is down."), RuntimeError("It broke."), say_text("<think>Hm</think> ")]
)
async def test_failed_summary_is_retried_later_and_fails_no_turn(tmp_path: Path, failure: ScriptLine) -> None:
    llm = make_model(
        choose_agent("ask"),
        *script_turns(range(40)),
        summaries=[failure, failure, say_text("<think>Hm</think>\nRead them."), say_text("Hm\n</think>\nMore.")],
    )
    async with start_service(llm, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        await read_files(client.open_session(), range(40))
    check_all_fit(llm)
    first, second, third = [len(parse_transcript(each)) for each in llm.summary_prompts[:3]]
    assert (second - first, third - second) >= (RETRY_AFTER_MESSAGES - 2, RETRY_AFTER_MESSAGES - 2)
    assert [*dict.fromkeys(extract_summary(heard) for heard in llm.prompts)] == ["", "Read them.", "More."]
    assert any(str(heard[1].content).startswith(OMISSION_NOTE) for heard in llm.prompts)


async def test_long_summary_is_truncated(tmp_path: Path) -> None:
    llm = make_model(choose_agent("ask"), *script_turns(range(30)), summaries=[say_text("word " * 9_000)] * 3)
    async with start_service(llm, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        await read_files(client.open_session(), range(30))
    check_all_fit(llm)
    before = parse_transcript(llm.summary_prompts[1])[0]["summary so far"]
    assert len(before) <= CONTEXT_BUDGET // 10 * 3
    assert before.startswith("word word")


async def test_usage_includes_the_summary(tmp_path: Path) -> None:
    summary = say_text("Read them.")
    summary.usage_metadata = {"input_tokens": 70, "output_tokens": 20, "total_tokens": 90}
    llm = make_model(choose_agent("ask"), *script_turns(range(20)), summaries=[summary])
    async with start_service(llm, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        await read_files(client.open_session(), range(20))
        spent = (await client.open_session().get("/sessions/{id}/usage"))["purposes"]["summary"]
    assert (spent["model_calls"], spent["total_tokens"]) == (1, 90)


async def test_long_turn_with_parallel_calls_fits_the_window(tmp_path: Path) -> None:
    def read_three_files(n: int) -> ScriptLine:
        wanted = [("read_file", f"call_{n}_{i}", json.dumps({"path": f"{n}/{i}.py"})) for i in range(3)]
        return call_tools(*wanted, text=f"Step {n}.")

    llm = make_model(
        choose_agent("ask"),
        *map(read_three_files, range(40)),
        say_text("Done."),
        summaries=[say_text(f"Summary {n}.") for n in range(9)],
    )
    async with start_service(llm, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        session = client.open_session(parallel_tools=True)
        await session.send_text("Read all of it.")
        for n in range(40):
            for i in range(3):
                chunks = await session.send_result(FILE_CONTENT, call_id=f"call_{n}_{i}")
        assert chunks[-1] == text_chunk("Done.")
        assert len(await session.fetch_history()) == 1 + 40 * 4 + 1
        assert (await undo_last_turn(session))["undone"] == "Read all of it."
        after = make_model(choose_agent("ask"), say_text("Hello."))
    check_all_fit(llm)
    assert {strip_service_note(str(heard[1].content)) for heard in llm.prompts[1:]} == {"Read all of it."}
    assert extract_summary(llm.prompts[-1]).startswith("Summary ")
    async with start_service(after, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        await client.open_session().send_text("Hello")
    assert [message.content for message in after.prompts[-1][1:]] == ["Hello"]


async def test_giant_result_is_truncated_for_the_model_only(tmp_path: Path) -> None:
    llm = make_model(choose_agent("ask"), call_tool("read_file", path="a.py"), say_text("It is long."))
    async with start_service(llm, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        session = client.open_session()
        await session.send_text("Read a.py")
        assert await session.send_result("x" * 900_000) == [text_chunk("It is long.")]
        assert (await session.fetch_history())[2]["content"] == "x" * 900_000
    check_all_fit(llm)
    assert (llm.summary_prompts, llm.prompts[-1][1].content) == ([], "Read a.py")
    result = str(llm.prompts[-1][-1].content)
    assert result.startswith("xxx")
    assert result.endswith("xxx")
    assert "characters left out" in result
    assert len(result) > CONTEXT_BUDGET


async def test_undo_drops_only_a_summary_of_the_undone_turn(tmp_path: Path) -> None:
    llm = make_model(
        choose_agent("ask"),
        *script_turns(range(20)),
        *script_turns(range(19, 21)),
        summaries=[say_text("Read them."), say_text("Again.")],
    )
    async with start_service(llm, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        session = client.open_session()
        await read_files(session, range(20))
        assert extract_summary(llm.prompts[-1]) == "Read them."
        last = len([line for line in parse_transcript(llm.summary_prompts[0]) if line["from"] == "user"])
        await undo_last_turn(session)
        await read_files(session, [19])
        assert extract_summary(llm.prompts[-1]) == "Read them."
        copy = (await client.http.post("/sessions/s-1/fork", json={})).json()["session_id"]
        for _ in range(20 - last):
            await undo_last_turn(session)
        llm.lines = iter([say_text("Kept.")])
        await session.send_text("Hello")
        assert extract_summary(llm.prompts[-1]) == "Read them."
        await undo_last_turn(session)
        await undo_last_turn(session)
        llm.lines = iter([say_text("Dropped."), say_text("Copied.")])
        await session.send_text("Hello")
        assert extract_summary(llm.prompts[-1]) == ""
        assert str(llm.prompts[-1][1].content) == "Read 0.py"
        await client.open_session(copy).send_text("Hello")
        assert extract_summary(llm.prompts[-1]) == "Read them."
    check_all_fit(llm)


async def test_summary_of_undone_turns_is_discarded(tmp_path: Path) -> None:
    held = DeferredReply(say_text("Read them."))
    llm = make_model(choose_agent("ask"), *script_turns(range(16)), summaries=[held])
    async with start_service(llm, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        session = client.open_session()
        done = 0
        while not llm.summary_prompts:
            await read_files(session, [done])
            done += 1
        for _ in range(done):
            await undo_last_turn(session)
        held.release.set()
        llm.lines = iter([choose_agent("ask"), *script_turns(range(100, 130))])
        llm.summaries = iter([say_text("Read others.")] * 9)
        await read_files(session, range(100, 130))
    check_all_fit(llm)
    assert {extract_summary(heard) for heard in llm.prompts} == {"", "Read others."}


async def test_a_pruned_thread_keeps_its_summary(database: str) -> None:
    llm = make_model(choose_agent("ask"), *script_turns(range(18)), summaries=[say_text("Read them.")])
    app = create_app(settings_for(database, prune_after_runs=1, **SMALL_WINDOW), provide_model(llm))
    async with start_service(None, settings_for(database), app) as client:
        await read_files(client.open_session(), range(16))
        await app.state.janitor.prune_sessions()
        await read_files(client.open_session(), range(16, 18))
        assert len(await client.open_session().fetch_history()) == 18 * 4
    assert extract_summary(llm.prompts[-1]) == "Read them."
    assert len(llm.summary_prompts) == 1


async def test_the_offline_model_understands_requests_under_a_summary(tmp_path: Path) -> None:
    async with start_service(None, settings_for(tmp_path, **SMALL_WINDOW)) as client:
        session = client.open_session()
        for n in range(10):
            chunks = await session.send_text(f"read {n}.py, {'please, ' * 1_000}")
            assert chunks[-1]["arguments"] == {"path": f"{n}.py"}
            chunks = await session.send_result(FILE_CONTENT, call_id=chunks[-1]["call_id"])
            assert chunks[-1]["type"] == "assistant_message"
        assert len(await session.fetch_history()) == 40


def test_too_small_context_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 4000"):
        Settings(_env_file=None, context_tokens=3_999)
    talkative = AGENTS["coder"].model_copy(update={"prompt": "word " * 1_000})
    with pytest.raises(ValueError, match=r"AGENT_RUNTIME__CONTEXT_TOKENS: the coder agent .* needs \d+ or more\."):
        Summarizer(make_model(), 4_000).validate_agents({"coder": talkative})
    Summarizer(make_model(), 4_000).validate_agents(AGENTS)
