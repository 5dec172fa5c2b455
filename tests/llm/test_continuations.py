"""A text that was cut off gets its rest from one more model call, or says that it was cut off."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from graph.completion.continuation import CONTINUE_PROMPT
from tests.llm.test_cut_answers import CUT_CALL, get_results
from tests.llm.test_model_failures import UNIVERSAL_SWITCH, start_scripted_service
from tests.support.llm_server import (
    Responder,
    build_delta,
    close_after,
    cut_off,
    encode_sse,
    hang_after,
    respond_raw,
    respond_raw_tool_call,
    respond_status,
    respond_text,
    respond_tool_call,
)
from tests.support.service import text_chunk, tool_call_chunk

HALF = cut_off(respond_text("I read the file and"))
REST = respond_text(" found a typo.")
WHOLE = "I read the file and found a typo."
LIMIT_NOTE = '\n\nThe answer was cut off here, at the output limit of the model. Write "Go on" to get the rest.'
FILTER_NOTE = "\n\nThe content filter of the model's service stopped the answer here. Put the request in other words."


def cut_chunk(text: str, reason: str = "length") -> dict[str, Any]:
    note = LIMIT_NOTE if reason == "length" else FILTER_NOTE
    return text_chunk(f"{text}{note}", metadata={"truncated": reason})


@pytest.mark.parametrize("is_streaming", [True, False], ids=["streamed", "a document"])
async def test_cut_text_is_completed_by_a_second_call(tmp_path: Path, is_streaming: bool) -> None:
    """The client, the history and later requests have one message. The usage of both calls is counted."""
    read = respond_tool_call("read_file", path="a.py")
    async with start_scripted_service(tmp_path, read, HALF, REST, llm_streaming=is_streaming) as (llm, client):
        session = client.open_session(usage=True)
        await session.send_text("Read a.py")
        usage, answer = await session.send_result("x = 1")
        assert answer == text_chunk(WHOLE)
        assert (usage["model_calls"], usage["prompt_tokens"], usage["completion_tokens"]) == (2, 20, 10)
        sent = [(m["role"], m["content"]) for m in llm.requests[-1].body["messages"][1:]]
        assert sent == [
            ("user", "Read a.py"),
            ("assistant", ""),
            ("tool", "x = 1"),
            ("assistant", HALF.text),
            ("user", CONTINUE_PROMPT),
        ]
        assert [m["content"] for m in await session.fetch_history()] == ["Read a.py", None, "x = 1", WHOLE]
        llm.steps.append(respond_text("You are welcome."))
        await session.send_text("Thanks")
        assert [m["content"] for m in llm.requests[-1].body["messages"][-2:]] == [WHOLE, "Thanks"]


async def test_tokens_of_both_calls_are_one_text(tmp_path: Path) -> None:
    async with start_scripted_service(tmp_path, HALF, REST) as (_, client):
        _, *tokens, last = await client.open_session(tokens=True).send_text("Read")
    assert "".join(chunk["token"] for chunk in tokens) == WHOLE
    assert last == {"type": "assistant_message", "content": WHOLE, "is_final": True}


async def test_text_that_stays_cut_off_says_so(tmp_path: Path) -> None:
    """There is one continuation only. The sentence is for the user: no later request has it."""
    async with start_scripted_service(tmp_path, HALF, cut_off(REST, "MAX_TOKENS"), respond_text("It is mended.")) as (
        llm,
        client,
    ):
        session = client.open_session(tokens=True)
        _, *tokens, last = await session.send_text("Read")
        assert "".join(chunk["token"] for chunk in tokens) == last["content"]
        assert last == {k: v for k, v in cut_chunk(WHOLE).items() if k != "token"}
        assert len(llm.requests) == 2
        await session.send_text("Go on")
        assert [m["content"] for m in llm.requests[-1].body["messages"][1:]] == ["Read", WHOLE, "Go on"]


@pytest.mark.parametrize("is_streaming", [True, False], ids=["streamed", "a document"])
@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "RECITATION"])
async def test_text_that_a_content_filter_stopped_is_not_continued(
    tmp_path: Path, reason: str, is_streaming: bool
) -> None:
    step = cut_off(respond_text("First, you take"), reason)
    async with start_scripted_service(tmp_path, step, llm_streaming=is_streaming) as (llm, client):
        session = client.open_session()
        assert await session.send_text("How?") == [UNIVERSAL_SWITCH, cut_chunk("First, you take", "content_filter")]
        assert len(llm.requests) == 1
        assert (await session.fetch_history())[-1] == {"role": "assistant", "content": "First, you take"}


async def test_rest_that_a_content_filter_stopped_is_marked(tmp_path: Path) -> None:
    async with start_scripted_service(tmp_path, HALF, cut_off(REST, "content_filter")) as (_, client):
        answer = await client.open_session().send_text("Read")
    assert answer == [UNIVERSAL_SWITCH, cut_chunk(WHOLE, "content_filter")]


@pytest.mark.parametrize(
    ("steps", "rest"),
    [
        ([respond_status(400)], ""),
        ([respond_status(500)] * 2, ""),
        ([respond_text("")] * 2, ""),
        ([close_after(encode_sse(build_delta(content=" found")))], " found"),
        ([cut_off(respond_text(" found"), "error")], " found"),
    ],
    ids=["refused", "down", "empty", "broke off", "an error for its end"],
)
async def test_failed_continuation_keeps_what_came(tmp_path: Path, steps: list[Responder], rest: str) -> None:
    async with start_scripted_service(tmp_path, HALF, *steps) as (llm, client):
        session = client.open_session(tokens=True)
        _, *tokens, last = await session.send_text("Read")
        text = f"{HALF.text}{rest}"
        assert "".join(chunk["token"] for chunk in tokens) == last["content"] == cut_chunk(text)["content"]
        assert last["metadata"] == {"truncated": "length"}
        assert (await session.fetch_history())[-1]["content"] == text
        assert len(llm.requests) == 1 + len(steps)


async def test_rest_can_be_a_call(tmp_path: Path) -> None:
    steps = [HALF, respond_text(" mend it.") & respond_tool_call("read_file", path="a.py"), respond_text("Done.")]
    async with start_scripted_service(tmp_path, *steps) as (llm, client):
        session = client.open_session()
        assert await session.send_text("Read") == [
            UNIVERSAL_SWITCH,
            text_chunk("I read the file and mend it.", is_final=False),
            tool_call_chunk("read_file", path="a.py"),
        ]
        assert await session.send_result("x = 1") == [text_chunk("Done.")]
        assert [m["role"] for m in llm.requests[-1].body["messages"]] == ["system", "user", "assistant", "tool"]


async def test_rest_can_end_the_turn(tmp_path: Path) -> None:
    """The completion has no result of its own, so the joined text is the result."""
    rest = cut_off(respond_tool_call("attempt_completion"), "tool_calls")
    async with start_scripted_service(tmp_path, cut_off(respond_text("It runs.")), rest) as (_, client):
        assert await client.open_session().send_text("Mend it") == [
            UNIVERSAL_SWITCH,
            text_chunk("It runs.", metadata={"completion": True}),
        ]


async def test_rest_with_a_cut_call_does_not_run_it(tmp_path: Path) -> None:
    call = cut_off(respond_raw_tool_call("write_file", '{"path": "a.py", "content": "x'))
    async with start_scripted_service(tmp_path, HALF, call, respond_text("Sorry.")) as (llm, client):
        assert await client.open_session().send_text("Write") == [
            UNIVERSAL_SWITCH,
            text_chunk(HALF.text, is_final=False),
            text_chunk("Sorry."),
        ]
        assert get_results(llm.requests[-1]) == [CUT_CALL]


@pytest.mark.parametrize(
    "limits",
    [
        {"max_turn_model_calls": 1, "budget_warning": 1},
        {"max_turn_model_calls": 2, "budget_warning": 0.5},
        {"max_turn_tokens": 15, "budget_warning": 1},
        {"max_session_cost": "0.00001", "prices": {"*": {"prompt": 1, "completion": 1}}, "budget_warning": 1},
    ],
    ids=["calls", "the warning", "tokens", "cost"],
)
async def test_budgets_hold_for_the_second_call(tmp_path: Path, limits: dict[str, Any]) -> None:
    async with start_scripted_service(tmp_path, HALF, **limits) as (llm, client):
        assert await client.open_session().send_text("Read") == [UNIVERSAL_SWITCH, cut_chunk(HALF.text)]
        assert len(llm.requests) == 1


async def test_cancel_drops_the_second_call(tmp_path: Path) -> None:
    async with start_scripted_service(tmp_path, HALF, hang_after(b"")) as (llm, client):
        session = client.open_session()
        asking = asyncio.create_task(session.send_text("Read"))
        await llm.wait_for_requests(2)
        await client.http.post("/sessions/s-1/cancel")
        assert (await asking)[-1]["metadata"]["code"] == "cancelled"
        assert await session.fetch_history() == [{"role": "user", "content": "Read"}]
        llm.steps.append(respond_text("Read."))
        assert await session.send_text("Again") == [text_chunk("Read.")]


async def test_text_that_does_not_fit_the_context_again_is_not_continued(tmp_path: Path) -> None:
    """Without the text there is nothing to continue."""
    long = cut_off(respond_text("a b c d " * 5_000))
    async with start_scripted_service(tmp_path, long, context_tokens=9_000) as (llm, client):
        assert await client.open_session().send_text("Count") == [UNIVERSAL_SWITCH, cut_chunk(long.text)]
        assert len(llm.requests) == 1


async def test_sentence_is_outside_of_a_cut_code_block(tmp_path: Path) -> None:
    step = cut_off(respond_text("Run this:\n```sh\nmake"), "content_filter")
    async with start_scripted_service(tmp_path, step) as (_, client):
        _, answer = await client.open_session().send_text("How?")
    assert answer["content"] == f"Run this:\n```sh\nmake\n```{FILTER_NOTE}"


@pytest.mark.parametrize(
    "step", [respond_text("Hello."), respond_raw(encode_sse(build_delta(content="Hello."), done=True))]
)
async def test_answer_without_a_reason_or_with_a_stop_is_complete(tmp_path: Path, step: Responder) -> None:
    async with start_scripted_service(tmp_path, step) as (llm, client):
        assert await client.open_session().send_text("Hello") == [UNIVERSAL_SWITCH, text_chunk("Hello.")]
        assert len(llm.requests) == 1
