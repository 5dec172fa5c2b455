"""A proxy whose streams have no tool calls is found out. No call is lost, and no fault passes for an answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from graph.llm import open_model
from graph.settings import Settings
from tests.support.clock import advance_loop_clock
from tests.support.codelab_proxy import BehindProxy, ProxyFault
from tests.support.llm_server import (
    Responder,
    ScriptedLLM,
    build_delta,
    encode_sse,
    reset_after,
    respond_raw,
    respond_status,
    respond_text,
    respond_tool_call,
)
from tests.support.service import GatewayClient, settings_for, start_service, text_chunk, tool_call_chunk

READ = respond_tool_call("read_file", path="a.py")
READ_CHUNK = tool_call_chunk("read_file", path="a.py")
TEXT_AND_READ = respond_text("I read it.") & READ
PLAIN_STREAM = respond_raw(encode_sse(build_delta(content="Hi."), build_delta(finish_reason="stop"), done=True))
"""A whole answer of a service that reports no usage."""


@asynccontextmanager
async def start_with(
    tmp_path: Path, *steps: Responder, **changes: Any
) -> AsyncIterator[tuple[ScriptedLLM, GatewayClient]]:
    """Start the service with the default way of asking a model, and with universal, so that there is no choice."""
    async with ScriptedLLM(*steps) as llm:
        model = {"llm_model": "scripted", "llm_proxy_url": llm.url, "llm_retry_delay_seconds": 0}
        async with start_service(None, settings_for(tmp_path, multi_agent_mode=False, **model, **changes)) as client:
            await client.open_session().switch("universal")
            yield llm, client


def list_streaming(llm: ScriptedLLM) -> list[bool]:
    return [request.is_streaming for request in llm.requests]


async def test_a_turn_with_codelabs_proxy_and_the_default_settings(tmp_path: Path) -> None:
    """Only the first request is sent twice. The history has each text and each call once."""
    steps = [BehindProxy(TEXT_AND_READ)] * 2 + [BehindProxy(READ), BehindProxy(respond_text("It is empty."))]
    async with start_with(tmp_path, *steps) as (llm, client):
        session = client.open_session()
        assert await session.send_text("Read a.py") == [text_chunk("I read it.", is_final=False), READ_CHUNK]
        (again,) = await session.send_result("")
        assert again == {**READ_CHUNK, "call_id": again["call_id"]}
        assert await session.send_result("", again["call_id"]) == [text_chunk("It is empty.")]
        history = await session.fetch_history()
    assert list_streaming(llm) == [True, False, False, False]
    assert [(m["role"], m["content"]) for m in history if m["role"] != "tool"] == [
        ("user", "Read a.py"),
        ("assistant", "I read it."),
        ("assistant", None),
        ("assistant", "It is empty."),
    ]
    assert all("stream_options" not in request.body for request in llm.requests if not request.is_streaming)


async def test_bare_call_that_a_stream_lost_is_made(tmp_path: Path) -> None:
    async with start_with(tmp_path, BehindProxy(READ), BehindProxy(READ)) as (llm, client):
        assert await client.open_session().send_text("Read a.py") == [READ_CHUNK]
    assert list_streaming(llm) == [True, False]


async def test_text_that_was_streamed_stays_and_gets_the_call(tmp_path: Path) -> None:
    """A model seldom says the same thing twice. The tokens that a client has are the text of the message."""
    other = BehindProxy(respond_text("Let me see.") & READ)
    async with start_with(tmp_path, BehindProxy(TEXT_AND_READ), other) as (_, client):
        *tokens, whole, call = await client.open_session(tokens=True).send_text("Read a.py")
        said = (await client.open_session().fetch_history())[1]
    assert "".join(token["token"] for token in tokens) == whole["content"] == said["content"] == "I read it."
    assert call == READ_CHUNK


async def test_plain_answers_of_a_service_without_usage_cost_one_call_each(tmp_path: Path) -> None:
    """After one check the requests go without streaming for a while, so that no answer is asked for twice."""
    hello = BehindProxy(respond_text("Hi."))
    async with start_with(tmp_path, *[hello] * 4) as (llm, client):
        for _ in range(3):
            assert await client.open_session().send_text("Hello") == [text_chunk("Hi.")]
    assert list_streaming(llm) == [True, False, False, False]


async def test_streams_are_tried_again_after_a_pause_that_doubles() -> None:
    """Then the service may prove that they have their calls."""
    tool = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}
    plain = BehindProxy(respond_text("Hi."))
    async with ScriptedLLM(*[plain] * 5, READ, PLAIN_STREAM) as llm:
        settings = Settings(_env_file=None, llm_model="scripted", llm_proxy_url=llm.url)
        async with open_model(settings) as model:
            for seconds in (0, 601, 601, 601, 0):
                await advance_loop_clock(seconds)
                assert [chunk async for chunk in model.bind_tools([tool]).astream("Hello")]
    assert list_streaming(llm) == [True, False, True, False, False, True, True]


async def test_lost_call_after_a_plain_answer_is_made(tmp_path: Path) -> None:
    """A plain answer is no proof that the next stream has its calls."""
    hello = BehindProxy(respond_text("Hi."))
    async with start_with(tmp_path, hello, hello, BehindProxy(TEXT_AND_READ)) as (llm, client):
        await client.open_session().send_text("Hello")
        said = await client.open_session().send_text("Read a.py")
    assert said == [text_chunk("I read it.", is_final=False), READ_CHUNK]
    assert list_streaming(llm) == [True, False, False]


@pytest.mark.parametrize("proof", [READ, respond_text("Hello.")])
async def test_stream_with_calls_or_usage_is_believed_from_then_on(tmp_path: Path, proof: Responder) -> None:
    async with start_with(tmp_path, proof, PLAIN_STREAM, PLAIN_STREAM) as (llm, client):
        await client.open_session("s-1").send_text("Hello")
        for name in ("s-2", "s-3"):
            assert (await client.open_session(name).send_text("Hello"))[-1] == text_chunk("Hi.")
    assert list_streaming(llm) == [True] * 3


async def test_each_model_is_judged_by_itself(tmp_path: Path) -> None:
    steps = [respond_status(500)] * 3 + [BehindProxy(READ), BehindProxy(READ), respond_text("Hi.")]
    async with start_with(tmp_path, *steps, llm_fallback_model="spare") as (llm, client):
        assert (await client.open_session("s-1").send_text("Read a.py"))[-1] == READ_CHUNK
        assert (await client.open_session("s-2").send_text("Hello"))[-1] == text_chunk("Hi.")
    assert [(request.body["model"], request.is_streaming) for request in llm.requests] == [
        *[("scripted", True)] * 3,
        ("spare", True),
        ("spare", False),
        ("scripted", True),
    ]


@pytest.mark.parametrize("failure", [respond_status(400), respond_status(500), reset_after()])
async def test_streamed_text_counts_if_the_check_fails(tmp_path: Path, failure: Responder) -> None:
    async with start_with(tmp_path, PLAIN_STREAM, failure, respond_text("Well.")) as (llm, client):
        assert await client.open_session().send_text("Hello") == [text_chunk("Hi.")]
        assert await client.open_session().send_text("And?") == [text_chunk("Well.")]
    assert list_streaming(llm) == [True, False, True]


async def test_service_that_only_streams_is_not_checked_again(tmp_path: Path) -> None:
    async with start_with(tmp_path, PLAIN_STREAM, respond_status(400), PLAIN_STREAM) as (llm, client):
        for _ in range(2):
            assert await client.open_session().send_text("Hello") == [text_chunk("Hi.")]
    assert list_streaming(llm) == [True, False, True]


async def test_empty_answer_without_a_call_behind_it_is_an_error(tmp_path: Path) -> None:
    nothing = BehindProxy(respond_text(""))
    async with start_with(tmp_path, *[nothing] * 4) as (llm, client):
        (error,) = await client.open_session().send_text("Hello")
    assert error["metadata"]["code"] == "llm_invalid_answer"
    assert list_streaming(llm) == [True, False, False, False]


async def test_finish_reason_that_names_a_lost_call_is_believed(tmp_path: Path) -> None:
    """Other proxies drop the call and keep its reason. Usage is no proof then."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    lost = respond_raw(encode_sse(build_delta(content="I read it."), {**build_delta("tool_calls"), "usage": usage}))
    async with start_with(tmp_path, lost, TEXT_AND_READ) as (llm, client):
        said = await client.open_session().send_text("Read a.py")
    assert said == [text_chunk("I read it.", is_final=False), READ_CHUNK]
    assert list_streaming(llm) == [True, False]


async def test_request_without_tools_is_streamed_and_not_checked(tmp_path: Path) -> None:
    """A title is such a request."""
    title, hello = respond_text("Greeting"), respond_text("Hi.")
    async with start_with(tmp_path, hello, BehindProxy(title), llm_titles=True) as (llm, client):
        await client.open_session().send_text("Hello")
        await llm.wait_for_requests(2)
    assert "tools" not in llm.requests[1].body


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("Connection error.", "The model service reported a fault. Try again in a moment."),
        ("Error code: 500 - {'error': {'message': 'secret'}}", "The model service is overloaded or down (status 500)."),
        ("Error code: 429 - {'error': {'message': 'slow down'}}", "The rate limit of the model service is reached"),
        ("Error code: 404 - {'error': {'message': 'no', 'code': 'model_not_found'}}", "does not know the model"),
        ("Error code: 400 - {'error': {'message': 'x', 'code': 'context_length_exceeded'}}", "too large for the model"),
        ("Error code: 401 - not Python {", "refused the key (status 401)"),
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
async def test_fault_text_of_the_proxy_is_an_error(tmp_path: Path, error: str, sentence: str, streaming: bool) -> None:
    settings = {"llm_streaming": streaming, "llm_retries": 0}
    async with start_with(tmp_path, *[ProxyFault(error)] * 3, **settings) as (llm, client):
        (chunk,) = await client.open_session().send_text("Hello")
        assert (chunk["metadata"]["code"], sentence in chunk["error"]) == ("llm_unavailable", True)
        llm.steps = [respond_text("All is well.")]
        assert await client.open_session().send_text("Again") == [text_chunk("All is well.")]
        assert [message["role"] for message in await client.open_session().fetch_history()] == [
            *("user", "user", "assistant")
        ]


async def test_fault_text_within_a_stream_breaks_the_answer_off(tmp_path: Path) -> None:
    async with start_with(tmp_path, ProxyFault(words=("I will ", "read "))) as (_, client):
        *tokens, error = await client.open_session(tokens=True).send_text("Hello")
        assert "".join(token["token"] for token in tokens) == "I will read "
        assert (error["error"], error["metadata"]["code"]) == (
            "The model's answer broke off. Try again.",
            "llm_unavailable",
        )
        assert [message["role"] for message in await client.open_session().fetch_history()] == ["user"]


async def test_fault_of_the_check_is_that_of_an_empty_stream(tmp_path: Path) -> None:
    steps: list[Responder] = [BehindProxy(READ), ProxyFault(), BehindProxy(READ), BehindProxy(READ)]
    async with start_with(tmp_path, *steps) as (llm, client):
        assert await client.open_session().send_text("Read a.py") == [READ_CHUNK]
    assert list_streaming(llm) == [True, False, True, False]
