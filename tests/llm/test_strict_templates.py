"""A session works with a model that answers 500 to every history that a strict chat template refuses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.history_rules import find_faults
from tests.support.llm_server import (
    LLMRequest,
    Responder,
    ScriptedLLM,
    respond_status,
    respond_text,
    respond_tool_call,
)
from tests.support.service import SessionClient, settings_for, start_service, text_chunk

WRITE = respond_tool_call("write_file", path="a.py", content="x")
READ = respond_tool_call("read_file", path="a.py")
DOWN = [respond_status(500)] * 3
"""The answers to a model call with its two repetitions."""


class StrictModel:
    """A model that plays its replies, and refuses a history that breaks a rule."""

    def __init__(self, *replies: Responder) -> None:
        self.replies = [*replies]
        self.requested = asyncio.Event()
        self.refusals: list[dict[str, str]] = []
        self.histories: list[list[str]] = []
        """The messages of each request without the system prompt: role and text."""

    def answer_request(self, request: LLMRequest) -> Responder:
        self.requested.set()
        messages = request.body["messages"]
        self.histories.append([f"{message['role']}: {message['content']}" for message in messages[1:]])
        if faults := find_faults(messages):
            self.refusals.append(faults)
            return respond_status(500)
        return self.replies.pop(0)


@asynccontextmanager
async def open_strict_session(folder: Path, model: StrictModel, **changes: Any) -> AsyncIterator[SessionClient]:
    async with ScriptedLLM(otherwise=model.answer_request) as llm:
        settings = settings_for(
            folder,
            llm_model="strict",
            llm_proxy_url=llm.url,
            llm_retry_delay_seconds=0,
            multi_agent_mode=False,
            **changes,
        )
        async with start_service(None, settings) as client:
            yield client.open_session()
    assert model.refusals == []


async def check_next_message(session: SessionClient, model: StrictModel, *before: str) -> None:
    """Check that two more messages have an answer, and that the model is sent `before` ahead of the first."""
    model.replies[:] = [respond_text("Here."), respond_text("Still here.")]
    assert await session.send_text("And now?") == [text_chunk("Here.")]
    assert model.histories[-1] == [*before, "user: And now?"]
    assert await session.send_text("And then?") == [text_chunk("Still here.")]
    assert model.histories[-1] == [*before, "user: And now?", "assistant: Here.", "user: And then?"]


async def test_session_continues_after_a_failed_message(tmp_path: Path) -> None:
    model = StrictModel(*DOWN)
    async with open_strict_session(tmp_path, model) as session:
        assert (await session.send_text("Hello"))[-1]["metadata"]["code"] == "llm_unavailable"
        await check_next_message(session, model, "user: Hello", "assistant: (no answer)")


async def test_session_continues_after_a_failure_between_two_steps(tmp_path: Path) -> None:
    model = StrictModel(READ, *DOWN)
    async with open_strict_session(tmp_path, model) as session:
        await session.send_text("Read it")
        assert (await session.send_result("x = 1"))[-1]["metadata"]["code"] == "llm_unavailable"
        await check_next_message(
            session, model, "user: Read it", "assistant: ", "tool: x = 1", "assistant: (no answer)"
        )


@pytest.mark.parametrize("call", [WRITE, READ], ids=["waits for approval", "waits for its result"])
async def test_session_continues_when_the_user_goes_on(tmp_path: Path, call: Responder) -> None:
    model = StrictModel(call)
    async with open_strict_session(tmp_path, model) as session:
        assert (await session.send_text("Fix it"))[-1]["type"] == "tool_call"
        model.replies[:] = [respond_text("Gladly.")]
        assert await session.send_text("Stop, do this") == [text_chunk("Gladly.")]
        result = (await session.fetch_history())[2]["content"]
        before = ["user: Fix it", "assistant: ", f"tool: {result}", "assistant: (no answer)", "user: Stop, do this"]
        assert model.histories[-1] == before
        await check_next_message(session, model, *before, "assistant: Gladly.")


async def test_session_continues_after_a_rejection_with_an_answer(tmp_path: Path) -> None:
    model = StrictModel(WRITE, respond_text("As you wish."))
    async with open_strict_session(tmp_path, model) as session:
        await session.send_text("Fix it")
        assert await session.decide("reject") == [text_chunk("As you wish.")]
        rejection = "tool: The user rejected this call."
        await check_next_message(session, model, "user: Fix it", "assistant: ", rejection, "assistant: As you wish.")


async def test_session_continues_after_a_rejection_without_an_answer(tmp_path: Path) -> None:
    model = StrictModel(WRITE, *DOWN)
    async with open_strict_session(tmp_path, model) as session:
        await session.send_text("Fix it")
        assert (await session.decide("reject"))[-1]["type"] == "error"
        rejection = "tool: The user rejected this call."
        await check_next_message(session, model, "user: Fix it", "assistant: ", rejection, "assistant: (no answer)")


async def test_session_continues_after_a_cancelled_run(tmp_path: Path) -> None:
    model = StrictModel(respond_text("Too late.", after=asyncio.Event()))
    async with open_strict_session(tmp_path, model) as session:
        run = asyncio.create_task(session.send_text("Hello"))
        await model.requested.wait()
        await session.http.post("/sessions/s-1/cancel")
        assert (await run)[-1]["metadata"]["code"] == "cancelled"
        await check_next_message(session, model, "user: Hello", "assistant: (no answer)")


@pytest.mark.parametrize(
    ("call", "result", "seen"),
    [
        (
            respond_text("Tests pass.") & respond_tool_call("attempt_completion", result="Fixed."),
            "The turn has ended with this result.",
            "Tests pass.\n\nFixed.",
        ),
        (
            respond_tool_call("ask_followup_question", question="Which?"),
            "The user was asked; their next message is the answer.",
            "Which?",
        ),
    ],
    ids=["completion", "question"],
)
async def test_the_model_is_sent_the_text_that_ended_the_turn(
    tmp_path: Path, call: Any, result: str, seen: str
) -> None:
    model = StrictModel(call)
    async with open_strict_session(tmp_path, model) as session:
        (chunk,) = (await session.send_text("Fix it"))[-1:]
        assert chunk["content"] == seen
        history = await session.fetch_history()
        await check_next_message(
            session, model, "user: Fix it", f"assistant: {call.text}", f"tool: {result}", f"assistant: {seen}"
        )
    assert [message["role"] for message in history] == ["user", "assistant", "tool"]


async def test_session_continues_after_a_declined_question_of_the_service(tmp_path: Path) -> None:
    model = StrictModel(READ)
    async with open_strict_session(tmp_path, model, max_turn_model_calls=2, budget_warning=0.5) as session:
        await session.send_text("Read it")
        (question,) = await session.send_result("x = 1")
        assert question["tool_name"] == "continue_work"
        (stop,) = await session.decide("reject", question["call_id"])
        assert stop["content"].startswith("Stopped here: 1 of 2 model calls")
        before = ["user: Read it", "assistant: ", "tool: x = 1", "assistant: (no answer)"]
        await check_next_message(session, model, *before)


@pytest.mark.parametrize("blank", ["\n\n", " ", "\u00a0", "\u200b", "\ufeff"])
async def test_blank_text_beside_a_call_is_not_sent_back(tmp_path: Path, blank: str) -> None:
    model = StrictModel(respond_text(blank) & READ)
    async with open_strict_session(tmp_path, model) as session:
        await session.send_text("Read it")
        model.replies[:] = [respond_text("It is empty.")]
        assert await session.send_result("") == [text_chunk("It is empty.")]
        before = ["user: Read it", "assistant: ", "tool: (no output)", "assistant: It is empty."]
        await check_next_message(session, model, *before)
