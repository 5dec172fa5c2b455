"""The client and the history have a model's answer without its thoughts, and no text that nobody can see."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.llm.test_model_failures import UNIVERSAL_SWITCH, start_scripted_service
from tests.support.llm_server import cut_off, respond_text, respond_tool_call
from tests.support.service import text_chunk, tool_call_chunk

READ_A = respond_tool_call("read_file", path="a.py")
STREAMING = pytest.mark.parametrize("is_streaming", [True, False], ids=["streamed", "a document"])
THOUGHTS = {"metadata": {"thoughts": True}}


def join_tokens(chunks: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return each whole text with the tokens before it, joined."""
    texts, tokens = [], ""
    for chunk in chunks:
        if chunk["type"] == "assistant_message" and "content" in chunk:
            texts.append((chunk["content"], tokens))
            tokens = ""
        elif chunk["type"] == "assistant_message":
            tokens += chunk["token"]
    assert tokens == ""
    return texts


@STREAMING
@pytest.mark.parametrize("setting", [{}, {"llm_thoughts": "drop"}])
async def test_answer_is_shown_and_kept_without_its_thoughts(
    tmp_path: Path, is_streaming: bool, setting: dict[str, str]
) -> None:
    steps = [respond_text("<think>\nA secret.\n</think>\n\nHello there."), respond_text("Bye.")]
    async with start_scripted_service(tmp_path, *steps, llm_streaming=is_streaming, **setting) as (llm, client):
        session = client.open_session()
        assert await session.send_text("Hello") == [UNIVERSAL_SWITCH, text_chunk("Hello there.")]
        assert (await session.fetch_history())[1] == {"role": "assistant", "content": "Hello there."}
        await session.send_text("Bye")
        assert llm.requests[-1].body["messages"][2] == {"role": "assistant", "content": "Hello there."}


@STREAMING
async def test_tokens_have_no_thoughts(tmp_path: Path, is_streaming: bool) -> None:
    step = respond_text("<think> A secret. </think> Hello there.")
    async with start_scripted_service(tmp_path, step, llm_streaming=is_streaming) as (_, client):
        said = await client.open_session(tokens=True).send_text("Hello")
        assert join_tokens(said) == [("Hello there.", "Hello there.")]


@STREAMING
@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize(
    "blank",
    ["\n\n", " ", "\u00a0", "\u200b", "\ufeff", "\u2800", "<think>\n\n</think>\n\n", "<think>A secret.</think>\n"],
)
async def test_blank_text_beside_a_call_is_no_text(
    tmp_path: Path, blank: str, tokens: bool, is_streaming: bool
) -> None:
    steps = [respond_text(blank) & READ_A, respond_text("Done.")]
    async with start_scripted_service(tmp_path, *steps, llm_streaming=is_streaming) as (llm, client):
        session = client.open_session(tokens=tokens)
        assert await session.send_text("Read") == [UNIVERSAL_SWITCH, tool_call_chunk("read_file", path="a.py")]
        assert (await session.fetch_history())[1]["content"] is None
        await session.send_result()
        assert llm.requests[-1].body["messages"][2]["content"] == ""


async def test_text_about_thoughts_is_an_answer(tmp_path: Path) -> None:
    text = "`<think>` opens a block, as in\n```\n<think>Hm</think>\n```\nand `</think>` closes it."
    async with start_scripted_service(tmp_path, respond_text(text)) as (_, client):
        assert await client.open_session().send_text("What is <think>?") == [UNIVERSAL_SWITCH, text_chunk(text)]


@STREAMING
@pytest.mark.parametrize("text", ["<think>A secret.", "<think>A secret.</think>\n", "\u200b"])
async def test_answer_of_thoughts_alone_is_empty(tmp_path: Path, text: str, is_streaming: bool) -> None:
    steps = [respond_text(text)] * 3
    async with start_scripted_service(tmp_path, *steps, llm_streaming=is_streaming) as (llm, client):
        [_, error] = await client.open_session(tokens=True).send_text("Hello")
        assert (error["type"], error["metadata"]["code"]) == ("error", "llm_invalid_answer")
        assert len(llm.requests) == 2  # llm_retries=1
        assert len(await client.open_session().fetch_history()) == 1


CLOSED_ONLY = respond_text("A secret.\n</think>\n\nHello there.")
"""An answer of a model whose template opened the block."""


@STREAMING
async def test_thoughts_that_a_template_opened_are_left_out(tmp_path: Path, is_streaming: bool) -> None:
    async with start_scripted_service(tmp_path, CLOSED_ONLY, llm_streaming=is_streaming) as (_, client):
        session = client.open_session()
        assert await session.send_text("Hello") == [UNIVERSAL_SWITCH, text_chunk("Hello there.")]
        assert (await session.fetch_history())[1]["content"] == "Hello there."


async def test_thoughts_that_were_streamed_become_a_message_of_their_own(tmp_path: Path) -> None:
    async with start_scripted_service(tmp_path, CLOSED_ONLY) as (_, client):
        session = client.open_session(tokens=True)
        said = await session.send_text("Hello")
        assert join_tokens(said) == [("A secret.\n", "A secret.\n"), ("Hello there.", "Hello there.")]
        assert [chunk.get("metadata") for chunk in said if "content" in chunk][1:] == [{"thoughts": True}, None]
        assert [m["content"] for m in await session.fetch_history()] == ["Hello", "Hello there."]


async def test_thoughts_of_a_text_that_was_cut_off_are_one_message(tmp_path: Path) -> None:
    steps = [cut_off(respond_text("A secret")), respond_text(" of mine.\n</think>\n\nHello.")]
    async with start_scripted_service(tmp_path, *steps) as (_, client):
        session = client.open_session(tokens=True)
        said = await session.send_text("Hello")
        assert join_tokens(said) == [("A secret of mine.\n",) * 2, ("Hello.", "Hello.")]
        assert [m["content"] for m in await session.fetch_history()] == ["Hello", "Hello."]


@STREAMING
@pytest.mark.parametrize("step", [respond_text("<think>\nOne.\n\nTwo.\n</think>\nHello."), None])
async def test_shown_thoughts_are_a_quotation_before_the_answer(tmp_path: Path, step: Any, is_streaming: bool) -> None:
    step = step or respond_text("One.\n\nTwo.\n</think>\nHello.")
    async with start_scripted_service(tmp_path, step, llm_streaming=is_streaming, llm_thoughts="show") as (_, client):
        session = client.open_session()
        quotation = text_chunk("> One.\n>\n> Two.", is_final=False, **THOUGHTS)
        assert await session.send_text("Hello") == [UNIVERSAL_SWITCH, quotation, text_chunk("Hello.")]
        assert [m["content"] for m in await session.fetch_history()] == ["Hello", "Hello."]


async def test_shown_thoughts_are_streamed_as_they_end(tmp_path: Path) -> None:
    step = respond_text("<think>One.</think>\n") & READ_A
    async with start_scripted_service(tmp_path, step, llm_thoughts="show") as (_, client):
        said = await client.open_session(tokens=True).send_text("Hello")
        assert said == [
            UNIVERSAL_SWITCH,
            {"type": "assistant_message", "token": "> One.", "is_final": False},
            {"type": "assistant_message", "content": "> One.", "is_final": False, **THOUGHTS},
            tool_call_chunk("read_file", path="a.py"),
        ]


async def test_shown_thoughts_do_not_part_a_text_that_was_continued(tmp_path: Path) -> None:
    steps = [cut_off(respond_text("Hel")), respond_text("<think>Hm</think>lo there.")]
    async with start_scripted_service(tmp_path, *steps, llm_thoughts="show") as (_, client):
        said = await client.open_session(tokens=True).send_text("Hello")
        assert join_tokens(said) == [("Hello there.", "Hello there.")]


async def test_thoughts_count_in_an_estimated_usage(tmp_path: Path) -> None:
    step = replace(respond_text(f"<think>{'hm ' * 1000}</think>Hello."), usage={})
    async with start_scripted_service(tmp_path, step) as (_, client):
        _, usage, _ = await client.open_session(usage=True).send_text("Hello")
        assert usage["completion_tokens"] >= 1000
