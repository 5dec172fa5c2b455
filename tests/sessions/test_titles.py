"""A session gets its title from its first message, then from the model, and always from the user."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk

from graph.errors import LLMUnavailable
from graph.settings import Settings
from prompts import TITLE_PROMPT
from sessions.runs.titles import extract_title
from tests.support.eventually import eventually
from tests.support.scripted import DeferredReply, ScriptedModel, choose_agent, make_model, say_text
from tests.support.service import SessionClient, settings_for, start_service

TITLE_USAGE = {"input_tokens": 40, "output_tokens": 4, "total_tokens": 44}


def build_settings(database: str | Path) -> Settings:
    return settings_for(database, llm_titles=True, multi_agent_mode=False)


def say_title(title: str) -> AIMessageChunk:
    return say_text(title).model_copy(update={"usage_metadata": TITLE_USAGE})


async def fetch_title(session: SessionClient) -> str:
    return str((await session.get("/sessions/{id}"))["title"])


async def wait_for_usage(session: SessionClient, calls: int = 1) -> None:
    """Wait until the model was asked for so many titles, and the outcome is stored."""

    async def are_counted() -> bool:
        return bool((await session.get("/sessions/{id}/view"))["usage"]["model_calls"] >= calls)

    await eventually(are_counted, f"{calls} model calls of the session are counted")


def list_title_requests(llm: ScriptedModel) -> list[Any]:
    return [heard[1].content for heard in llm.prompts if heard[0].content == TITLE_PROMPT]


async def test_first_message_is_the_title_until_the_model_improves_it(database: str) -> None:
    better = DeferredReply(say_title('## "Retries of the parser."\n\nI hope it helps.'))
    llm = make_model(say_text("Done."), say_text("Done again."), choices=[better])
    async with start_service(llm, build_settings(database)) as client:
        session = client.open_session()
        await session.send_text("Please make\nthe parser try again")
        assert await fetch_title(session) == "Please make"
        await better.requested.wait()
        better.release.set()
        await wait_for_usage(session)
        assert await fetch_title(session) == "Retries of the parser"
        found = await session.get("/sessions", q="RETRIES")
        assert [each["session_id"] for each in found["sessions"]] == ["s-1"]
        await session.send_text("And again")
    assert list_title_requests(llm) == ["Please make\nthe parser try again"]


async def test_title_set_by_the_user_is_never_overwritten(database: str) -> None:
    better = DeferredReply(say_title("Parser"))
    async with start_service(make_model(say_text("Done."), choices=[better]), build_settings(database)) as client:
        session = client.open_session()
        await session.send_text("Mend the parser")
        await better.requested.wait()
        (await client.http.patch("/sessions/s-1", json={"title": "Mine"})).raise_for_status()
        better.release.set()
        await wait_for_usage(session)
        assert await fetch_title(session) == "Mine"


async def test_title_set_before_the_first_message_is_kept(database: str) -> None:
    llm = make_model(say_text("Done."), choices=[])
    async with start_service(llm, build_settings(database)) as client:
        created = (await client.http.post("/sessions")).json()["session_id"]
        (await client.http.patch(f"/sessions/{created}", json={"title": ""})).raise_for_status()
        session = client.open_session(created)
        await session.send_text("Mend the parser")
        assert await fetch_title(session) == ""


async def test_empty_session_gets_its_title_from_the_first_message(database: str) -> None:
    better = DeferredReply(say_title("Parser"))
    async with start_service(make_model(say_text("Done."), choices=[better]), build_settings(database)) as client:
        session = client.open_session((await client.http.post("/sessions")).json()["session_id"])
        await session.switch("universal")
        assert await fetch_title(session) == ""
        await session.send_text("Mend the parser")
        assert await fetch_title(session) == "Mend the parser"
        better.release.set()
        await wait_for_usage(session)
        assert await fetch_title(session) == "Parser"


async def test_title_keeps_joined_characters(tmp_path: Path) -> None:
    async with start_service(make_model(say_text("Done.")), settings_for(tmp_path, multi_agent_mode=False)) as client:
        session = client.open_session()
        await session.send_text("Mend the 👨\u200d👩\u200d👧 of می\u200cخواهم")
        assert await fetch_title(session) == "Mend the 👨\u200d👩\u200d👧 of می\u200cخواهم"


@pytest.mark.parametrize(
    "answer",
    [
        "Okay, a short title.\n</think>\nFix the parser",
        "<think>\nA short title: parser.\n</think>\n\nFix the parser",
        "Title: Fix the parser",
        "**Title:** Fix the parser.",
        "Title: <title>Fix the parser</title>",
        "<title>Fix the parser</title>",
        "- Fix the parser",
        "1. Fix the parser\n2. Mend it",
        "Here is a title:\nFix the parser",
        'Here\'s a title for the conversation: "Fix the parser"',
        "Sure! A short title:\n\n> **Fix the parser**",
        "‘Fix the parser’",
        "**Title**\n\nFix the parser",
        "Заголовок: Fix the parser",
    ],
)
async def test_only_the_title_of_an_answer_is_kept(tmp_path: Path, answer: str) -> None:
    llm = make_model(say_text("Done."), choices=[say_title(answer)])
    async with start_service(llm, build_settings(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Mend it")
        await wait_for_usage(session)
        assert await fetch_title(session) == "Fix the parser"


@pytest.mark.parametrize(
    "title", ["Fix page title: wrong encoding", "Explain the <title> tag", "3 parsers: which one?", "Titles in Word"]
)
def test_words_that_look_like_a_label_stay(title: str) -> None:
    assert extract_title(title) == title


@pytest.mark.parametrize("answer", ["<think>Hm", "Here is a title:", "\u200b"])
def test_answer_without_a_title_has_none(answer: str) -> None:
    assert extract_title(answer) == ""


@pytest.mark.parametrize("answer", ["", " \n ", '{"title": "x"}', "```json\n{}", "word " * 40, "x" + "\u200b" * 50])
async def test_unusable_title_is_ignored_and_not_requested_again(tmp_path: Path, answer: str) -> None:
    llm = make_model(say_text("Done."), say_text("Done again."), choices=[say_title(answer)])
    async with start_service(llm, build_settings(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Mend the parser")
        await wait_for_usage(session)
        await session.send_text("And again")
        assert await fetch_title(session) == "Mend the parser"
    assert len(list_title_requests(llm)) == 1


async def test_failed_title_is_requested_again_with_the_next_message(tmp_path: Path) -> None:
    failed = asyncio.Event()

    def fail_once(_: Any) -> AIMessageChunk:
        failed.set()
        raise LLMUnavailable("The model service could not be reached.")

    llm = make_model(say_text("Done."), say_text("Done again."), choices=[fail_once, say_title("Greeting")])
    async with start_service(llm, build_settings(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Mend the parser")
        await failed.wait()
        await session.send_text("Hello")
        await wait_for_usage(session)
        assert await fetch_title(session) == "Greeting"


async def test_fork_keeps_the_title_of_its_source(tmp_path: Path) -> None:
    llm = make_model(say_text("Done."), say_text("Done again."), choices=[say_title("Parser")])
    async with start_service(llm, build_settings(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Mend the parser")
        await wait_for_usage(session)
        fork = client.open_session((await client.http.post("/sessions/s-1/fork")).json()["session_id"])
        await fork.send_text("And again")
        assert await fetch_title(fork) == "Parser"
    assert len(list_title_requests(llm)) == 1


@pytest.mark.parametrize("how", [{}, {"hard": True}])
async def test_late_title_is_not_set_on_a_successor_session(database: str, how: dict[str, Any]) -> None:
    late = DeferredReply(say_title("Secret plans"))
    llm = make_model(*[say_text("Done.")] * 9999, choices=[late, say_title("Harmless")])
    async with start_service(llm, build_settings(database)) as client:
        session = client.open_session()
        await session.send_text("My secret plans")
        await late.requested.wait()
        (await client.http.delete("/sessions/s-1", params=how)).raise_for_status()
        await session.send_text("Something harmless")
        late.release.set()

        async def is_improved() -> bool:
            await session.send_text("And again")
            return await fetch_title(session) != "Something harmless"

        await eventually(is_improved, "the model improves the title of the new session")
        assert await fetch_title(session) == "Harmless"


async def test_request_does_not_wait_for_a_title(tmp_path: Path) -> None:
    never = DeferredReply(say_title("Never"))
    async with start_service(
        make_model(say_text("Done."), say_text("Done again."), choices=[never]), build_settings(tmp_path)
    ) as client:
        session = client.open_session()
        await session.send_text("Mend the parser")
        await never.requested.wait()
        assert (await session.send_text("And again"))[-1]["content"] == "Done again."


async def test_classification_comes_before_the_title(tmp_path: Path) -> None:
    llm = make_model(say_text("Done."), choices=[choose_agent("coder"), say_title("Parser")])
    async with start_service(llm, settings_for(tmp_path, llm_titles=True)) as client:
        session = client.open_session()
        await session.send_text("Mend the parser")
        await wait_for_usage(session)
        assert await fetch_title(session) == "Parser"
