"""The model's side, through a real socket: what is sent, what is read, and what is said when nothing can be."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import add_ai_message_chunks

from graph.completion.request import request_completion as ask_agent
from graph.errors import AgentRuntimeError, LLMInvalidAnswer, LLMUnavailable
from graph.llm import ProxyModel, build_endpoint, make_studio_model, open_model
from graph.llm.decoder import MAX_BYTES, PROXY_FAULT
from graph.llm.openai_format import to_openai
from graph.offline import OfflineModel
from graph.settings import Settings
from graph.wire import StreamOptions
from prompts import AGENTS
from tests.langgraph_dev import free_port
from tests.llm_server import (
    EVENTS,
    HTML,
    JSON,
    Exchange,
    Reply,
    ScriptedLLM,
    Step,
    breaks,
    calls,
    calls_raw,
    delta,
    hangs,
    raw,
    resets,
    says,
    sse,
    status,
)

Ask = Callable[[Any], Awaitable[AIMessage]]
READ_FILE = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}
END = delta(finish_reason="stop")


async def streamed(model: Any) -> AIMessage:
    first, *others = [chunk async for chunk in model.astream("Hi")]
    return add_ai_message_chunks(first, *others) if isinstance(first, AIMessageChunk) else first


async def whole(model: Any) -> AIMessage:
    message: AIMessage = await model.ainvoke("Hi")
    return message


async def hear(model: BaseChatModel, on_text: Callable[[str], None]) -> None:
    async for chunk in model.astream("Hi"):
        on_text(chunk.text)


@pytest.fixture(params=[streamed, whole])
def ask(request: pytest.FixtureRequest) -> Ask:
    asking: Ask = request.param
    return asking


def settings(url: str, **others: Any) -> Settings:
    given = {"llm_model": "scripted", "llm_proxy_url": url, "llm_retry_delay_seconds": 0, **others}
    return Settings(_env_file=None, **given)


@asynccontextmanager
async def talk(*steps: Step, **others: Any) -> AsyncIterator[tuple[ScriptedLLM, BaseChatModel]]:
    async with ScriptedLLM(*steps) as llm, open_model(settings(llm.url, **others)) as model:
        yield llm, model


def event(text: str) -> bytes:
    return sse(delta(content=text))


def _args(text: str, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"arguments": text}}


class TestRequest:
    async def test_a_conversation_goes_out_in_the_openai_format(self) -> None:
        call = {"name": "read_file", "args": {"path": "ä.py"}, "id": "call_1"}
        conversation: list[BaseMessage] = [
            SystemMessage("Be brief."),
            HumanMessage("Read ä.py"),
            AIMessage("", tool_calls=[call]),
            ToolMessage("print()", tool_call_id="call_1", name="read_file"),
        ]
        async with talk(says("It prints.")) as (llm, model):
            bound = model.bind_tools([READ_FILE], parallel_tool_calls=False, temperature=0.3, stop=["END"])
            assert "".join([str(chunk.text) async for chunk in bound.astream(conversation)]) == "It prints."

        sent = llm.requests[0]
        assert (sent.path, sent.headers["content-type"]) == ("/v1/chat/completions", "application/json")
        function = {"name": "read_file", "arguments": '{"path": "ä.py"}'}
        assert sent.body == {
            "model": "scripted",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Read ä.py"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
                },
                {"role": "tool", "content": "print()", "tool_call_id": "call_1", "name": "read_file"},
            ],
            "tools": [READ_FILE],
            "parallel_tool_calls": False,
            "temperature": 0.3,
            "stop": ["END"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    async def test_without_streaming_and_without_tools_nothing_is_said_about_them(self) -> None:
        async with talk(says("Hello."), llm_streaming=False) as (llm, model):
            bound = model.bind_tools([], parallel_tool_calls=False)
            assert [chunk.text async for chunk in bound.astream("Hi")] == ["Hello."]
        messages = [{"role": "user", "content": "Hi"}]
        assert llm.requests[0].body == {"model": "scripted", "messages": messages, "stream": False}

    @pytest.mark.parametrize(
        ("keys", "internal", "foreign"),
        [
            ({}, None, None),
            ({"internal_api_key": "ours"}, "ours", None),
            ({"internal_api_key": "ours", "llm_api_key": "theirs"}, None, "Bearer theirs"),
        ],
    )
    async def test_our_own_key_goes_to_our_own_proxy_only(
        self, keys: dict[str, str], internal: str | None, foreign: str | None
    ) -> None:
        async with talk(says("Hello."), **keys) as (llm, model):
            await model.ainvoke("Hi")
        headers = llm.requests[0].headers
        assert (headers.get("x-internal-auth"), headers.get("authorization")) == (internal, foreign)

    @pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
    def test_an_address_is_completed(self, path: str) -> None:
        assert build_endpoint(f"http://proxy:4000{path}") == "http://proxy:4000/v1/chat/completions"
        assert build_endpoint(f"https://host/openai{path}") == "https://host/openai/v1/chat/completions"

    @pytest.mark.parametrize("address", ["", "proxy:4000", "ftp://proxy", "http://", "http://[::", "http://a:b"])
    def test_what_is_no_address_is_refused_at_start_up(self, address: str) -> None:
        with pytest.raises(ValueError, match="LLM_PROXY_URL"):
            build_endpoint(address)

    async def test_a_connection_serves_one_message_after_the_other(self, ask: Ask) -> None:
        async with talk(says("One."), says("Two.")) as (llm, model):
            assert [(await ask(model)).text, (await ask(model)).text] == ["One.", "Two."]
            assert llm.connections == 1

    async def test_surrogate_halves_and_nul_reach_the_proxy_as_valid_json(self) -> None:
        async with talk(says("Odd.")) as (llm, model):
            await model.ainvoke("a\ud800b\0c")
        assert llm.requests[0].body["messages"][0]["content"] == "a\ud800b\0c"


class TestAnswer:
    async def test_text_and_usage(self, ask: Ask) -> None:
        async with talk(says("Привет, 世界!\n\nDone.")) as (_, model):
            message = await ask(model)
        assert message.content == "Привет, 世界!\n\nDone."
        assert message.response_metadata["finish_reason"] == "stop"
        assert message.usage_metadata == {
            "input_tokens": 10,
            "output_tokens": 5,
            "total_tokens": 15,
            "input_token_details": {"cache_read": 0},
        }

    async def test_text_comes_as_it_is_written(self) -> None:
        rest = asyncio.Event()

        async def two_words(exchange: Exchange) -> None:
            await exchange.start(event("Once"))
            await rest.wait()
            await exchange.piece(event(" more.") + sse(END, done=True))
            await exchange.piece(b"")

        words: list[str] = []
        async with talk(two_words) as (_, model):
            async for chunk in model.astream("Hi"):
                words.append(chunk.text)
                rest.set()
        assert [word for word in words if word] == ["Once", " more."]

    async def test_text_beside_several_calls(self, ask: Ask) -> None:
        step = says("I look.") & calls("read_file", path="a.py") & calls("list_files", path=".", id="call_2")
        async with talk(step) as (_, model):
            message = await ask(model)
        assert message.content == "I look."
        assert [(call["id"], call["name"], call["args"]) for call in message.tool_calls] == [
            ("call_1", "read_file", {"path": "a.py"}),
            ("call_2", "list_files", {"path": "."}),
        ]

    @pytest.mark.parametrize(
        ("arguments", "read"),
        [
            ("", {}),
            ("null", {}),
            (None, {}),
            ({"path": "a.py"}, {"path": "a.py"}),
            ('{"content": "bare\nnewline"}', {"content": "bare\nnewline"}),
        ],
    )
    async def test_arguments_are_taken_as_they_come(self, arguments: Any, read: dict[str, Any]) -> None:
        async with talk(calls_raw("read_file", arguments, id=None), llm_streaming=False) as (_, model):
            message = await whole(model)
        assert [(call["id"], call["args"]) for call in message.tool_calls] == [(None, read)]

    @pytest.mark.parametrize(
        "arguments", ["not JSON", '{"path": "a', "[1]", '"text"', "7", '{"a":' * 65 + "1" + "}" * 65, "[" * 90_000]
    )
    async def test_arguments_that_are_no_object_are_never_made_one(self, ask: Ask, arguments: str) -> None:
        async with talk(calls_raw("write_file", arguments)) as (_, model):
            message = await ask(model)
        assert message.tool_calls == []
        assert [call["id"] for call in message.invalid_tool_calls] == ["call_1"]

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (event("a b") + sse(END, done=True), "a b"),
            (event("a").replace(b"data: ", b"data:") + sse(END, done=True), "a"),
            ((b"\n\n" + event("a") + b"\n\n\n" + sse(END, done=True)), "a"),
            (b": hello\n\nevent: x\nid: 1\nretry: 5\n" + event("a") + b":\n\n" + sse(END, done=True), "a"),
            ((event("a") + sse(END, done=True)).replace(b"\n", b"\r\n"), "a"),
            (event("a") + sse(END) + b"data: [DONE]  \n \n\n", "a"),
            (event("a") + b"data: [DONE]\\n\n\n", "a"),
            (event("a") + b"data: [DONE]", "a"),
            (event("a") + sse(END), "a"),
            (event("a") + sse(END).rstrip(), "a"),
            (event("a") + sse(END) + b'data: {"usage": {"prompt', "a"),
            (event("a") + sse(END, {"choices": []}, {"choices": None}, {}, done=True), "a"),
            (sse(delta(content=None), delta(content="a", tool_calls=None, function_call=None), END, done=True), "a"),
            (sse({**END, "error": None}) + event("a") + sse(done=True), "a"),
            (event("a") + sse({"choices": [{"delta": None, "finish_reason": "stop"}]}), "a"),
            (sse(delta(content=[{"type": "text", "text": "a"}, "b"]), END), "ab"),
            (sse({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}), "a"),
            (event("a") + sse({"choices": [{"index": 1, "delta": {"content": "b"}}]}, END), "a"),
            (sse(delta(refusal="No."), END), "No."),
            ('data: {"choices":[{"delta":{"content":"a\u2028b\u0085c"}}]}\n\n'.encode() + sse(END), "a\u2028b\u0085c"),
            (b'data: {"choices":\ndata: [{"delta":{"content":"a"}}]}\n\n' + sse(END), "a"),
            (b"\xef\xbb\xbf" + event("a") + sse(END), "a"),
            (sse(delta(content="\ud83d"), delta(content="\ude00!"), END), "\U0001f600!"),
            (sse(delta(content="a\0\udc00"), delta(content="b\ud83d"), END), "a\ufffd\ufffdb\ufffd"),
            (event("[Err") + event("or] in line 3") + sse(END), "[Error] in line 3"),
            (event("[Error]") + sse(END), "[Error]"),
        ],
    )
    @pytest.mark.parametrize("slices", [None, 1])
    async def test_streams_as_services_really_send_them(self, body: bytes, text: str, slices: int | None) -> None:
        async with talk(raw(body, slices=slices), llm_retries=0) as (_, model):
            assert (await streamed(model)).content == text

    @pytest.mark.parametrize(
        ("deltas", "read"),
        [
            (
                [[{"index": 0, "id": "1", "function": {"name": "f", "arguments": '{"a"'}}], [_args(":1}", index=0)]],
                [("1", "f", {"a": 1})],
            ),
            (
                [[{"function": {"name": "f", "arguments": ""}}], [_args('{"a":1')], [_args("}")]],
                [(None, "f", {"a": 1})],
            ),
            (
                [[{"id": "1", "function": {"name": "f"}}], [{"id": "1", **_args("{}")}], [{"id": "2", **_args("{}")}]],
                [("1", "f", {}), ("2", "", {})],
            ),
            (
                [
                    [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}}],
                    [{"index": 0, "id": "2", "function": {"name": "g", "arguments": "{}"}}],
                ],
                [("1", "f", {}), ("2", "g", {})],
            ),
            (
                [[{"function": {"name": "f", "arguments": {}}}, {"function": {"name": "f", "arguments": {"a": 1}}}]],
                [(None, "f", {}), (None, "f", {"a": 1})],
            ),
            (
                [
                    [{"index": 1, "id": "2", "function": {"name": "g"}}, {"index": 0, "id": "1", **_args("{}")}],
                    [_args('{"b":2}', index=1)],
                    [{"index": 0, "function": {"name": "f"}}],
                ],
                [("2", "g", {"b": 2}), ("1", "f", {})],
            ),
            (
                [
                    [{"index": 0, "id": "1", "function": {"name": "f", "arguments": '{"a":'}}],
                    [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}}"}}],
                ],
                [("1", "f", {"a": {}})],
            ),
            ([[None, 3, {"index": 0, "id": 5, "function": {"name": "f"}}], [{"index": 0}]], [(None, "f", {})]),
        ],
    )
    async def test_calls_as_services_really_send_them(self, deltas: Any, read: Any) -> None:
        body = sse(*[delta(tool_calls=parts) for parts in deltas], delta(finish_reason="tool_calls"), done=True)
        async with talk(raw(body), llm_retries=0) as (_, model):
            message = await streamed(model)
        assert [(call["id"], call["name"], call["args"]) for call in message.tool_calls] == read

    async def test_two_calls_of_one_id_stay_two(self, ask: Ask) -> None:
        async with talk(calls("read_file", path="a") & calls("read_file", path="b")) as (_, model):
            message = await ask(model)
        assert [(call["id"], call["args"]["path"]) for call in message.tool_calls] == [("call_1", "a"), ("call_1", "b")]

    @pytest.mark.parametrize("content_type", [JSON, EVENTS])
    async def test_a_service_that_cannot_stream(self, content_type: str) -> None:
        step = says("I look.") & calls("read_file", path="a.py")
        body = json.dumps(step.completion(), indent=2).encode()
        async with talk(raw(body, content_type=content_type)) as (_, model):
            message = await streamed(model)
        assert (message.content, message.tool_calls[0]["args"]) == ("I look.", {"path": "a.py"})
        assert message.usage_metadata
        assert message.usage_metadata["total_tokens"] == 15

    async def test_a_service_that_always_streams(self) -> None:
        async with talk(raw(event("a") + event("b") + sse(END, done=True))) as (_, model):
            assert (await whole(model)).content == "ab"

    async def test_a_stream_that_stays_open_after_its_end(self) -> None:
        async with talk(hangs(event("a") + sse(END, done=True)), says("Next.")) as (_, model):
            assert (await streamed(model)).content == "a"
            assert (await streamed(model)).content == "Next."


SILENT = [hangs(), hangs(b": hello\n\n"), hangs(event("One"))]


def impatient(step: Step) -> dict[str, float]:
    """Only where silence is the story: a slow machine is silent, too."""
    short = {"llm_first_byte_timeout_seconds": 1.0, "llm_idle_timeout_seconds": 1.0}
    return short if step in SILENT else {}


TRANSIENT: list[tuple[Step, type[AgentRuntimeError]]] = [
    (status(500), LLMUnavailable),
    (status(503, Retry_After="0"), LLMUnavailable),
    (status(429, Retry_After="soon"), LLMUnavailable),
    (status(429, Retry_After="Fri, 31 Dec 9999 23:59:59 -1200"), LLMUnavailable),
    (status(408), LLMUnavailable),
    (resets(), LLMUnavailable),
    (resets(b""), LLMUnavailable),
    (resets(b": hello\n\n"), LLMUnavailable),
    (breaks(sse(delta(role="assistant"))), LLMUnavailable),
    (raw(sse(delta(role="assistant"))), LLMUnavailable),
    (breaks(sse(delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{"}}]))), LLMUnavailable),
    (SILENT[0], LLMUnavailable),
    (SILENT[1], LLMUnavailable),
    (raw(sse({"error": {"message": "secret detail", "code": 500}})), LLMUnavailable),
    (raw(b'{"error": "secret detail"}', content_type=JSON), LLMUnavailable),
    (says(f"{PROXY_FAULT}: secret detail"), LLMUnavailable),
    (says(f"\n {PROXY_FAULT}"), LLMUnavailable),
    (raw(b"<html>secret detail</html>", content_type=HTML), LLMInvalidAnswer),
    (raw(b"secret detail", content_type=JSON), LLMInvalidAnswer),
    (raw(b'{"choices": [{"mess', content_type=JSON), LLMInvalidAnswer),
    (raw(b'{"choices": []}', content_type=JSON), LLMInvalidAnswer),
    (raw(b'{"choices": [7]}', content_type=JSON), LLMInvalidAnswer),
    (raw(b'{"choices": "' + b"x" * 99, content_type=JSON), LLMInvalidAnswer),
    (raw(b"[" * 9999, content_type=JSON), LLMInvalidAnswer),
    (raw(b'{"a":' * 99_999, content_type=JSON), LLMInvalidAnswer),
    (raw(b"data: garbage\n\n"), LLMInvalidAnswer),
    (raw(b"data: 7\n\n"), LLMInvalidAnswer),
    (raw(b"data: " + b"[" * 99_999 + b"\n\n"), LLMInvalidAnswer),
    (raw(b""), LLMInvalidAnswer),
    (raw(gzip.compress(b"a")), LLMInvalidAnswer),
    (says(""), LLMInvalidAnswer),
    (says("  \n"), LLMInvalidAnswer),
    (raw(sse(done=True)), LLMInvalidAnswer),
]


class TestFault:
    @pytest.mark.parametrize(("step", "error"), TRANSIENT)
    async def test_is_tried_again_before_the_first_word(
        self, ask: Ask, step: Step, error: type[AgentRuntimeError]
    ) -> None:
        async with talk(step, step, says("At last."), **impatient(step)) as (llm, model):
            assert (await ask(model)).content == "At last."
            assert len(llm.requests) == 3

    @pytest.mark.parametrize(("step", "error"), TRANSIENT)
    async def test_ends_in_one_sentence_and_the_next_message_works(
        self, ask: Ask, step: Step, error: type[AgentRuntimeError], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "agent_runtime.llm")
        others = {"llm_retries": 1, "internal_api_key": "our-key", **impatient(step)}
        async with talk(step, step, says("Hello."), **others) as (llm, model):
            with pytest.raises(error) as failed:
                await ask(model)
            assert (await ask(model)).content == "Hello."
        assert len(llm.requests) == 3
        assert len(caplog.records) == 2
        for said in (str(failed.value), caplog.text):
            assert not any(secret in said for secret in ("our-key", "secret", "127.0.0.1", "Traceback"))
        assert str(failed.value).endswith(".")

    @pytest.mark.parametrize("code", [302, 400, 401, 403, 404, 413, 422])
    async def test_a_refusal_is_final(self, ask: Ask, code: int) -> None:
        async with talk(status(code, Location="/elsewhere"), says("Hello.")) as (llm, model):
            with pytest.raises(LLMUnavailable, match=rf"refused the request \(status {code}\)"):
                await ask(model)
            assert len(llm.requests) == 1
            assert (await ask(model)).content == "Hello."

    async def test_a_refusal_in_the_stream_is_final(self) -> None:
        async with talk(raw(sse({"error": {"code": "400", "message": "secret"}}))) as (llm, model):
            with pytest.raises(LLMUnavailable, match=r"status 400"):
                await streamed(model)
            assert len(llm.requests) == 1

    async def test_a_long_break_is_passed_on_to_the_user(self, ask: Ask) -> None:
        async with talk(status(429, Retry_After="3600")) as (llm, model):
            with pytest.raises(LLMUnavailable, match=r"Try again in 3600 seconds\."):
                await ask(model)
            assert len(llm.requests) == 1

    async def test_a_break_longer_than_the_time_left_is_not_waited_for(self, ask: Ask) -> None:
        async with talk(status(503, Retry_After="20"), llm_timeout_seconds=10) as (llm, model):
            with pytest.raises(LLMUnavailable):
                await ask(model)
            assert len(llm.requests) == 1

    async def test_nobody_listens(self, ask: Ask) -> None:
        async with open_model(settings(f"http://127.0.0.1:{free_port()}")) as model:
            with pytest.raises(LLMUnavailable, match="could not be reached"):
                await ask(model)

    @pytest.mark.parametrize("sent", [b"", event("One")])
    async def test_time_runs_out_in_an_answer_without_end(self, ask: Ask, sent: bytes) -> None:
        async def drips(exchange: Exchange) -> None:
            await exchange.start(sent)
            while True:
                await exchange.piece(b":\n")
                await asyncio.sleep(0.001)

        async with talk(drips, llm_timeout_seconds=0.3) as (llm, model):
            with pytest.raises(LLMUnavailable):
                await ask(model)
            assert len(llm.requests) == 1

    @pytest.mark.parametrize(
        "step",
        [
            resets(event("One")),
            breaks(event("One")),
            raw(event("One")),
            raw(event("One") + b'data: {"cho'),
            SILENT[2],
        ],
    )
    async def test_after_the_first_word_nothing_is_tried_again(self, step: Step) -> None:
        async with talk(step, says("Hello."), **impatient(step)) as (llm, model):
            words: list[str] = []
            with pytest.raises(LLMUnavailable, match=r"The model's answer broke off\."):
                await hear(model, words.append)
            assert words == ["One"]
            assert len(llm.requests) == 1
            assert (await streamed(model)).content == "Hello."

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (sse({"error": "secret"}), LLMUnavailable),
            (sse({"error": {"code": 429}}), LLMUnavailable),
            (b"data: garbage\n\n", LLMInvalidAnswer),
        ],
    )
    async def test_a_bad_event_after_the_first_word(self, bad: bytes, error: type[AgentRuntimeError]) -> None:
        async with talk(raw(event("One") + bad + sse(END), slices=len(event("One"))), says("Hello.")) as (llm, model):
            with pytest.raises(error, match=r"Try again\.$"):
                await streamed(model)
            assert len(llm.requests) == 1
            assert (await streamed(model)).content == "Hello."

    async def test_an_answer_cut_at_its_limit_is_no_half_call(self) -> None:
        body = sse(delta(tool_calls=[{"id": "1", **_args('{"path": "a.py", "content": "ha')}]), delta("length"))
        async with talk(raw(body)) as (_, model):
            message = await streamed(model)
        assert (message.tool_calls, len(message.invalid_tool_calls)) == ([], 1)
        assert message.response_metadata["finish_reason"] == "length"

    async def test_an_end_that_was_announced_needs_no_orderly_close(self) -> None:
        async with talk(resets(event("One") + sse(END)), llm_retries=0) as (_, model):
            assert (await streamed(model)).content == "One"

    async def test_the_proxys_own_fault_is_never_shown_word_by_word(self) -> None:
        words = [event(letter) for letter in f"{PROXY_FAULT}: connection refused"]
        async with talk(raw(b"".join(words) + sse(END), slices=7), says("Hello.")) as (llm, model):
            assert (await streamed(model)).content == "Hello."
            assert len(llm.requests) == 2


class TestBounds:
    async def test_an_endless_answer(self, ask: Ask) -> None:
        endless = raw(b":" + b"x" * MAX_BYTES + b"\n")
        async with talk(endless, raw(b'{"' + b" " * MAX_BYTES), says("Hello.")) as (llm, model):
            for _ in range(2):
                with pytest.raises(LLMInvalidAnswer, match="too large"):
                    await ask(model)
            assert len(llm.requests) == 2
            assert (await ask(model)).content == "Hello."

    async def test_endless_text(self) -> None:
        async with talk(raw(event("x" * 9000) * 1000, slices=9_000_000), says("Hello.")) as (_, model):
            with pytest.raises(LLMInvalidAnswer, match="too large"):
                await streamed(model)
            assert (await streamed(model)).content == "Hello."

    async def test_ten_thousand_calls(self, ask: Ask) -> None:
        many = Reply(tool_calls=calls("read_file", path="a").tool_calls * 10_000)
        async with talk(many, says("Hello.")) as (llm, model):
            with pytest.raises(LLMInvalidAnswer, match="too many tools"):
                await ask(model)
            assert (await ask(model)).content == "Hello."
            assert len(llm.requests) == 2


class TestLife:
    async def test_a_cancelled_answer_is_dropped(self, ask: Ask) -> None:
        async with talk(hangs(), says("Hello.")) as (llm, model):
            asking = asyncio.ensure_future(ask(model))
            await llm.received(1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert (await ask(model)).content == "Hello."

    async def test_the_offline_model_needs_no_server(self) -> None:
        async with open_model(Settings(_env_file=None)) as model:
            assert isinstance(model, OfflineModel)
        assert isinstance(make_studio_model(Settings(_env_file=None)), OfflineModel)

    def test_studio_has_a_client_for_each_event_loop(self) -> None:
        async def greet() -> str:
            async with ScriptedLLM(says("Hello.")) as llm:
                model = make_studio_model(settings(llm.url))
                assert isinstance(model, ProxyModel)
                text = str((await model.ainvoke("Hi")).text)
                await model.service.client().aclose()
                return text

        assert [asyncio.run(greet()), asyncio.run(greet())] == ["Hello."] * 2

    async def test_it_is_asynchronous_only(self) -> None:
        async with talk() as (_, model):
            with pytest.raises(NotImplementedError):
                model.invoke("Hi")

    async def test_it_shows_no_address_and_no_key(self) -> None:
        async with talk(internal_api_key="our-key", llm_streaming=False) as (llm, model):
            assert not any(secret in repr(model) + str(model.asdict()) for secret in ("our-key", llm.url))


@pytest.mark.parametrize(
    ("message", "shape"),
    [
        (HumanMessage([{"type": "text", "text": "a"}, "b", {"type": "image_url"}]), {"role": "user", "content": "ab"}),
        (AIMessage("Hello."), {"role": "assistant", "content": "Hello."}),
        (AIMessageChunk(content=""), {"role": "assistant", "content": ""}),
        (ToolMessage("x", tool_call_id="1"), {"role": "tool", "content": "x", "tool_call_id": "1"}),
    ],
)
def test_messages_have_the_shape_of_the_openai_api(message: BaseMessage, shape: dict[str, Any]) -> None:
    assert to_openai(message) == shape


class TestDown:
    """A model that is down is left alone, and another one asked."""

    FAST: ClassVar[dict[str, Any]] = {"llm_retries": 0, "llm_breaker_failures": 2, "llm_breaker_seconds": 60}

    async def test_after_failures_in_a_row_a_model_is_left_alone(self, ask: Ask) -> None:
        async with talk(status(500), resets(), says("Too early."), **self.FAST) as (llm, model):
            for _ in range(2):
                with pytest.raises(LLMUnavailable):
                    await ask(model)
            with pytest.raises(LLMUnavailable, match=r"It is asked again in \d+ seconds\."):
                await ask(model)
            assert len(llm.requests) == 2

    async def test_retries_end_when_a_model_is_left_alone(self, ask: Ask) -> None:
        async with talk(*[status(500)] * 5, llm_retries=4, llm_breaker_failures=2) as (llm, model):
            with pytest.raises(LLMUnavailable, match="It is asked again"):
                await ask(model)
            assert len(llm.requests) == 2

    @pytest.mark.parametrize("between", [says("Fine."), status(400), raw(sse(END, done=True))])
    async def test_an_answer_ends_the_row_of_failures_and_so_does_a_refusal(self, ask: Ask, between: Step) -> None:
        async with talk(status(500), between, status(500), says("Still asked."), **self.FAST) as (_, model):
            for _ in range(3):
                with suppress(AgentRuntimeError):
                    await ask(model)
            assert (await ask(model)).content == "Still asked."

    async def test_when_its_time_is_over_one_attempt_finds_out(self, ask: Ask) -> None:
        given = {**self.FAST, "llm_breaker_seconds": 1e-9}
        gate = asyncio.Event()
        steps: list[Step] = [status(500), status(500), says("Back.", after=gate), says("All is well.")]
        async with talk(*steps, **given) as (llm, model):
            for _ in range(2):
                with pytest.raises(LLMUnavailable):
                    await ask(model)
            probe = asyncio.ensure_future(ask(model))
            await llm.received(3)
            with pytest.raises(LLMUnavailable, match="asked again in a moment"):
                await ask(model)
            gate.set()
            assert (await probe).content == "Back."
            assert (await ask(model)).content == "All is well."

    async def test_a_probe_that_is_cancelled_leaves_room_for_another(self, ask: Ask) -> None:
        given = {**self.FAST, "llm_breaker_seconds": 1e-9}
        async with talk(status(500), status(500), hangs(), says("Back."), **given) as (llm, model):
            for _ in range(2):
                with pytest.raises(LLMUnavailable):
                    await ask(model)
            probe = asyncio.ensure_future(ask(model))
            await llm.received(3)
            probe.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probe
            assert (await ask(model)).content == "Back."

    async def test_an_older_attempt_that_ends_makes_no_room_for_a_second_probe(self, ask: Ask) -> None:
        given = {**self.FAST, "llm_breaker_failures": 1, "llm_breaker_seconds": 1e-9}
        async with talk(hangs(), status(500), hangs(), says("Too early."), **given) as (llm, model):
            older = asyncio.ensure_future(ask(model))
            await llm.received(1)
            with pytest.raises(LLMUnavailable):
                await ask(model)
            probe = asyncio.ensure_future(ask(model))
            await llm.received(3)
            for asking in (older, probe):
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                if asking is older:
                    with pytest.raises(LLMUnavailable, match="asked again in a moment"):
                        await ask(model)

    async def test_the_first_word_of_a_probe_lets_the_others_in(self) -> None:
        given = {**self.FAST, "llm_breaker_failures": 1, "llm_breaker_seconds": 1e-9}
        async with talk(status(500), hangs(event("Back")), says("All is well."), **given) as (_, model):
            with pytest.raises(LLMUnavailable):
                await streamed(model)
            probe = model.astream("Hi")
            assert (await anext(probe)).content == "Back"
            assert (await streamed(model)).content == "All is well."
            await probe.aclose()  # type: ignore[attr-defined]

    async def test_the_fallback_answers_when_the_attempts_are_used_up(self, ask: Ask) -> None:
        steps: list[Step] = [status(500), resets(), says("From the other.")]
        async with talk(*steps, llm_retries=1, llm_fallback_model="other") as (llm, model):
            answer = await ask(model)
        assert (answer.content, answer.response_metadata["model_name"]) == ("From the other.", "other")
        assert [request.body["model"] for request in llm.requests] == ["scripted", "scripted", "other"]

    async def test_who_answered_is_told(self, ask: Ask) -> None:
        async with talk(says("Hello."), llm_fallback_model="other") as (_, model):
            assert (await ask(model)).response_metadata["model_name"] == "scripted"

    async def test_a_model_that_is_left_alone_costs_the_fallback_no_time(self, ask: Ask) -> None:
        steps: list[Step] = [status(500), status(500), says("One."), says("Two.")]
        async with talk(*steps, **{**self.FAST, "llm_breaker_failures": 1}, llm_fallback_model="other") as (llm, model):
            with pytest.raises(LLMUnavailable):
                await ask(model)
            with pytest.raises(LLMUnavailable, match="It is asked again"):
                await ask(model)
            assert [request.body["model"] for request in llm.requests] == ["scripted", "other"]

    @pytest.mark.parametrize("step", [status(400), status(401), status(404)])
    async def test_a_refused_request_is_not_the_models_fault(self, ask: Ask, step: Step) -> None:
        async with talk(step, says("No."), llm_fallback_model="other") as (llm, model):
            with pytest.raises(LLMUnavailable, match="refused"):
                await ask(model)
            assert len(llm.requests) == 1

    async def test_a_limit_longer_than_anybody_waits_goes_to_the_fallback(self, ask: Ask) -> None:
        async with talk(status(429, Retry_After="3600"), says("Here."), llm_fallback_model="other") as (_, model):
            assert (await ask(model)).content == "Here."

    async def test_after_a_word_nobody_else_is_asked(self) -> None:
        heard: list[str] = []
        async with talk(resets(event("One")), says("Two."), llm_fallback_model="other") as (llm, model):
            with pytest.raises(LLMUnavailable, match="broke off"):
                await hear(model, heard.append)
            assert len(llm.requests) == 1
        assert heard == ["One"]

    async def test_a_silent_model_leaves_the_fallback_half_of_the_time(self, ask: Ask) -> None:
        async with talk(hangs(), says("In time."), llm_timeout_seconds=4, llm_fallback_model="other") as (_, model):
            assert (await ask(model)).content == "In time."

    @pytest.mark.parametrize("sent", [b"", b": wait\n\n"])
    async def test_signs_of_life_are_no_first_word(self, ask: Ask, sent: bytes) -> None:
        async def drips(exchange: Exchange) -> None:
            await exchange.start()
            while True:
                await exchange.piece(sent or b"\n")
                await asyncio.sleep(0.001)

        async with talk(drips, says("In time."), llm_timeout_seconds=2, llm_fallback_model="other") as (_, model):
            assert (await ask(model)).content == "In time."

    @pytest.mark.parametrize("head", [sse(delta(role="assistant")), b'{"choices": [{"message":'])
    async def test_an_answer_that_has_begun_may_take_more_than_half_of_the_time(self, ask: Ask, head: bytes) -> None:
        async def slow(exchange: Exchange) -> None:
            await exchange.start(head)
            clock = asyncio.get_running_loop().time
            past_half = clock() + 1.2
            with suppress(OSError):
                while clock() < past_half:
                    await exchange.piece(b"\n")
                    await asyncio.sleep(0.001)
            rest = b' {"content": "Late."}}]}' if head.startswith(b"{") else event("Late.") + sse(END, done=True)
            await exchange.piece(rest)
            await exchange.piece(b"")

        async with talk(slow, llm_timeout_seconds=2, llm_fallback_model="other") as (_, model):
            assert (await ask(model)).content == "Late."

    async def test_the_first_byte_may_take_longer_than_the_next_one(self) -> None:
        gate = asyncio.Event()
        patience = {"llm_first_byte_timeout_seconds": 60, "llm_idle_timeout_seconds": 0.2, "llm_retries": 0}

        async def thinks(exchange: Exchange) -> None:
            await gate.wait()
            await exchange.start(event("One"))
            await asyncio.Event().wait()

        async with talk(thinks, **patience) as (llm, model):
            heard: list[str] = []
            asking = asyncio.create_task(hear(model, heard.append))
            await llm.received(1)
            gate.set()
            with pytest.raises(LLMUnavailable, match="broke off"):
                await asking
        assert heard == ["One"]

    async def test_a_date_to_come_back_is_waited_for_or_told(self, ask: Ask) -> None:
        far = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
        past = format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)
        async with talk(status(429, Retry_After=past), says("Hello.")) as (_, model):
            assert (await ask(model)).content == "Hello."
        async with talk(status(429, Retry_After=far)) as (llm, model):
            with pytest.raises(LLMUnavailable, match=r"Try again in (3599|3600) seconds\."):
                await ask(model)
            assert len(llm.requests) == 1
        async with talk(status(429, Retry_After="10000000")) as (llm, model):
            with pytest.raises(LLMUnavailable, match=r"Try again in 10000000 seconds\."):
                await ask(model)
            assert len(llm.requests) == 1


class TestAgents:
    """An agent's file may name a model and a temperature of its own."""

    async def test_they_go_into_its_requests(self) -> None:
        agent = AGENTS["ask"].model_copy(update={"model": "small", "temperature": 0.0})
        async with talk(says("Hello."), llm_fallback_model="other") as (llm, model):
            await ask_agent(model, agent, [HumanMessage("Hi")], StreamOptions(), lambda _: None)
        assert (llm.requests[0].body["model"], llm.requests[0].body["temperature"]) == ("small", 0.0)

    async def test_without_them_the_settings_and_the_service_decide(self) -> None:
        async with talk(says("Hello.")) as (llm, model):
            await ask_agent(model, AGENTS["ask"], [HumanMessage("Hi")], StreamOptions(), lambda _: None)
        assert llm.requests[0].body["model"] == "scripted"
        assert "temperature" not in llm.requests[0].body

    async def test_the_fallback_stands_in_for_it_as_well(self) -> None:
        agent = AGENTS["ask"].model_copy(update={"model": "small"})
        async with talk(status(500), says("Hello."), llm_retries=0, llm_fallback_model="other") as (llm, model):
            await ask_agent(model, agent, [HumanMessage("Hi")], StreamOptions(), lambda _: None)
        assert [request.body["model"] for request in llm.requests] == ["small", "other"]
