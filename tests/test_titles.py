"""What a session is called, and by whom."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk

from graph.errors import LLMUnavailable
from graph.settings import Settings
from prompts import TITLE_PROMPT
from tests.scripted import Held, ScriptedModel, chooses, model, says
from tests.service import Session, service, settings_for

pytestmark = pytest.mark.anyio
COST = {"input_tokens": 40, "output_tokens": 4, "total_tokens": 44}


def titled(database: str | Path) -> Settings:
    return settings_for(database, llm_titles=True, multi_agent_mode=False)


def named(title: str) -> AIMessageChunk:
    return says(title).model_copy(update={"usage_metadata": COST})


async def title(session: Session) -> str:
    return str((await session.get("/sessions/{id}"))["title"])


async def when_paid(session: Session, calls: int = 1) -> None:
    """When the model was asked for so many titles, and what came of it is stored."""
    async with asyncio.timeout(20):
        while (await session.get("/sessions/{id}/view"))["usage"]["model_calls"] < calls:
            pass


def asked_for_titles(llm: ScriptedModel) -> list[Any]:
    return [heard[1].content for heard in llm.heard if heard[0].content == TITLE_PROMPT]


async def test_the_first_message_is_the_title_at_once_and_the_model_finds_a_better_one(database: str) -> None:
    better = Held(named('## "Retries of the parser."\n\nI hope it helps.'))
    llm = model(says("Done."), says("Done again."), choices=[better])
    async with service(llm, titled(database)) as client:
        session = client.session()
        await session.user("Please make\nthe parser try again")
        assert await title(session) == "Please make"
        await better.asked.wait()
        better.release.set()
        await when_paid(session)
        assert await title(session) == "Retries of the parser"
        found = await session.get("/sessions", q="RETRIES")
        assert [each["session_id"] for each in found["sessions"]] == ["s-1"]
        await session.user("And again")
    assert asked_for_titles(llm) == ["Please make\nthe parser try again"]


async def test_a_title_that_a_user_gave_is_never_overwritten(database: str) -> None:
    better = Held(named("Parser"))
    async with service(model(says("Done."), choices=[better]), titled(database)) as client:
        session = client.session()
        await session.user("Mend the parser")
        await better.asked.wait()
        (await client.http.patch("/sessions/s-1", json={"title": "Mine"})).raise_for_status()
        better.release.set()
        await when_paid(session)
        assert await title(session) == "Mine"


async def test_a_session_that_its_user_named_before_its_first_message_keeps_that_name(database: str) -> None:
    llm = model(says("Done."), choices=[])
    async with service(llm, titled(database)) as client:
        created = (await client.http.post("/sessions")).json()["session_id"]
        (await client.http.patch(f"/sessions/{created}", json={"title": ""})).raise_for_status()
        session = client.session(created)
        await session.user("Mend the parser")
        assert await title(session) == ""


async def test_a_session_that_was_made_empty_is_called_after_its_first_message(database: str) -> None:
    better = Held(named("Parser"))
    async with service(model(says("Done."), choices=[better]), titled(database)) as client:
        session = client.session((await client.http.post("/sessions")).json()["session_id"])
        await session.switch("universal")
        assert await title(session) == ""
        await session.user("Mend the parser")
        assert await title(session) == "Mend the parser"
        better.release.set()
        await when_paid(session)
        assert await title(session) == "Parser"


async def test_a_title_keeps_the_characters_that_its_user_wrote(tmp_path: Path) -> None:
    async with service(model(says("Done.")), settings_for(tmp_path, multi_agent_mode=False)) as client:
        session = client.session()
        await session.user("Mend the 👨\u200d👩\u200d👧 of می\u200cخواهم")
        assert await title(session) == "Mend the 👨\u200d👩\u200d👧 of می\u200cخواهم"


@pytest.mark.parametrize("answer", ["", " \n ", '{"title": "x"}', "```json\n{}", "word " * 40, "x" + "\u200b" * 50])
async def test_an_answer_that_is_no_title_leaves_the_first_and_is_not_asked_for_again(
    tmp_path: Path, answer: str
) -> None:
    llm = model(says("Done."), says("Done again."), choices=[named(answer)])
    async with service(llm, titled(tmp_path)) as client:
        session = client.session()
        await session.user("Mend the parser")
        await when_paid(session)
        await session.user("And again")
        assert await title(session) == "Mend the parser"
    assert len(asked_for_titles(llm)) == 1


async def test_a_model_that_fails_is_asked_again_at_the_next_message(tmp_path: Path) -> None:
    failed = asyncio.Event()

    def fails(_: Any) -> AIMessageChunk:
        failed.set()
        raise LLMUnavailable("The model service could not be reached.")

    llm = model(says("Done."), says("Done again."), choices=[fails, named("Greeting")])
    async with service(llm, titled(tmp_path)) as client:
        session = client.session()
        await session.user("Mend the parser")
        await failed.wait()
        await session.user("Hello")
        await when_paid(session)
        assert await title(session) == "Greeting"


async def test_the_copy_of_a_session_is_not_named_anew(tmp_path: Path) -> None:
    llm = model(says("Done."), says("Done again."), choices=[named("Parser")])
    async with service(llm, titled(tmp_path)) as client:
        session = client.session()
        await session.user("Mend the parser")
        await when_paid(session)
        fork = client.session((await client.http.post("/sessions/s-1/fork")).json()["session_id"])
        await fork.user("And again")
        assert await title(fork) == "Parser"
    assert len(asked_for_titles(llm)) == 1


@pytest.mark.parametrize("how", [{}, {"hard": True}])
async def test_a_title_comes_to_no_other_session_of_the_same_id(database: str, how: dict[str, Any]) -> None:
    late = Held(named("Secret plans"))
    llm = model(*[says("Done.")] * 99, choices=[late, named("Harmless")])
    async with service(llm, titled(database)) as client:
        session = client.session()
        await session.user("My secret plans")
        await late.asked.wait()
        (await client.http.delete("/sessions/s-1", params=how)).raise_for_status()
        await session.user("Something harmless")
        late.release.set()
        async with asyncio.timeout(20):
            while (found := await title(session)) == "Something harmless":
                await session.user("And again")
        assert found == "Harmless"


async def test_a_request_waits_for_no_title(tmp_path: Path) -> None:
    never = Held(named("Never"))
    async with service(model(says("Done."), says("Done again."), choices=[never]), titled(tmp_path)) as client:
        session = client.session()
        await session.user("Mend the parser")
        await never.asked.wait()
        assert (await session.user("And again"))[-1]["content"] == "Done again."


async def test_the_model_of_a_team_chooses_first_and_names_then(tmp_path: Path) -> None:
    llm = model(says("Done."), choices=[chooses("coder"), named("Parser")])
    async with service(llm, settings_for(tmp_path, llm_titles=True)) as client:
        session = client.session()
        await session.user("Mend the parser")
        await when_paid(session)
        assert await title(session) == "Parser"
