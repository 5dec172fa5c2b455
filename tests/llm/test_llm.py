"""The client of model services sends valid requests, reads every answer, and makes one error of each fault."""

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
from graph.llm import ProxyModel, make_studio_model, open_model
from graph.llm.framing import MAX_BYTES
from graph.llm.openai_format import to_openai
from graph.llm.proxy_faults import PROXY_FAULTS
from graph.offline import OfflineModel
from graph.settings import Settings
from graph.wire import StreamOptions
from prompts import AGENTS
from tests.support.clock import advance_loop_clock
from tests.support.llm_server import (
    EVENT_STREAM_TYPE,
    HTML_TYPE,
    JSON_TYPE,
    Exchange,
    Responder,
    ScriptedLLM,
    ScriptedReply,
    build_delta,
    close_after,
    encode_sse,
    hang_after,
    reset_after,
    respond_raw,
    respond_raw_tool_call,
    respond_status,
    respond_text,
    respond_tool_call,
)
from tests.support.ports import find_free_port

AskModel = Callable[[Any], Awaitable[AIMessage]]
READ_FILE_TOOL = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}
STREAM_END = build_delta(finish_reason="stop")


async def stream_answer(model: Any) -> AIMessage:
    first, *others = [chunk async for chunk in model.astream("Hi")]
    return add_ai_message_chunks(first, *others) if isinstance(first, AIMessageChunk) else first


async def invoke_answer(model: Any) -> AIMessage:
    message: AIMessage = await model.ainvoke("Hi")
    return message


async def stream_texts(model: BaseChatModel, on_text: Callable[[str], None]) -> None:
    async for chunk in model.astream("Hi"):
        on_text(chunk.text)


@pytest.fixture(params=[stream_answer, invoke_answer])
def ask(request: pytest.FixtureRequest) -> AskModel:
    asking: AskModel = request.param
    return asking


def build_settings(url: str, **others: Any) -> Settings:
    given = {"llm_model": "scripted", "llm_proxy_url": url, "llm_retry_delay_seconds": 0, **others}
    return Settings(_env_file=None, **given)


@asynccontextmanager
async def open_scripted_model(*steps: Responder, **others: Any) -> AsyncIterator[tuple[ScriptedLLM, BaseChatModel]]:
    async with ScriptedLLM(*steps) as llm, open_model(build_settings(llm.url, **others)) as model:
        yield llm, model


def encode_text_event(text: str) -> bytes:
    return encode_sse(build_delta(content=text))


def _build_arguments_delta(text: str, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"arguments": text}}


class TestRequest:
    async def test_conversation_is_sent_in_the_openai_format(self) -> None:
        call = {"name": "read_file", "args": {"path": "ä.py"}, "id": "call_1"}
        conversation: list[BaseMessage] = [
            SystemMessage("Be brief."),
            HumanMessage("Read ä.py"),
            AIMessage("", tool_calls=[call]),
            ToolMessage("print()", tool_call_id="call_1", name="read_file"),
        ]
        async with open_scripted_model(respond_text("It prints.")) as (llm, model):
            bound = model.bind_tools([READ_FILE_TOOL], parallel_tool_calls=False, temperature=0.3, stop=["END"])
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
            "tools": [READ_FILE_TOOL],
            "parallel_tool_calls": False,
            "temperature": 0.3,
            "stop": ["END"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    async def test_unused_options_are_left_out_of_the_request(self) -> None:
        async with open_scripted_model(respond_text("Hello."), llm_streaming=False) as (llm, model):
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
    async def test_internal_key_is_sent_only_to_the_internal_proxy(
        self, keys: dict[str, str], internal: str | None, foreign: str | None
    ) -> None:
        async with open_scripted_model(respond_text("Hello."), **keys) as (llm, model):
            await model.ainvoke("Hi")
        headers = llm.requests[0].headers
        assert (headers.get("x-internal-auth"), headers.get("authorization")) == (internal, foreign)

    async def test_connection_is_reused(self, ask: AskModel) -> None:
        async with open_scripted_model(respond_text("One."), respond_text("Two.")) as (llm, model):
            assert [(await ask(model)).text, (await ask(model)).text] == ["One.", "Two."]
            assert llm.connections == 1

    async def test_surrogate_halves_and_nul_reach_the_proxy_as_valid_json(self) -> None:
        async with open_scripted_model(respond_text("Odd.")) as (llm, model):
            await model.ainvoke("a\ud800b\0c")
        assert llm.requests[0].body["messages"][0]["content"] == "a\ud800b\0c"


class TestAnswer:
    async def test_text_and_usage_are_read(self, ask: AskModel) -> None:
        async with open_scripted_model(respond_text("Привет, 世界!\n\nDone.")) as (_, model):
            message = await ask(model)
        assert message.content == "Привет, 世界!\n\nDone."
        assert message.response_metadata["finish_reason"] == "stop"
        assert message.usage_metadata == {
            "input_tokens": 10,
            "output_tokens": 5,
            "total_tokens": 15,
            "input_token_details": {"cache_read": 0},
        }

    async def test_text_is_streamed_word_by_word(self) -> None:
        rest = asyncio.Event()

        async def respond_two_words(exchange: Exchange) -> None:
            await exchange.start_stream(encode_text_event("Once"))
            await rest.wait()
            await exchange.send_piece(encode_text_event(" more.") + encode_sse(STREAM_END, done=True))
            await exchange.send_piece(b"")

        words: list[str] = []
        async with open_scripted_model(respond_two_words) as (_, model):
            async for chunk in model.astream("Hi"):
                words.append(chunk.text)
                rest.set()
        assert [word for word in words if word] == ["Once", " more."]

    async def test_text_and_several_calls_are_read(self, ask: AskModel) -> None:
        step = (
            respond_text("I look.")
            & respond_tool_call("read_file", path="a.py")
            & respond_tool_call("list_files", path=".", id="call_2")
        )
        async with open_scripted_model(step) as (_, model):
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
    async def test_lenient_arguments_are_accepted(self, arguments: Any, read: dict[str, Any]) -> None:
        async with open_scripted_model(respond_raw_tool_call("read_file", arguments, id=None), llm_streaming=False) as (
            _,
            model,
        ):
            message = await invoke_answer(model)
        assert [(call["id"], call["args"]) for call in message.tool_calls] == [(None, read)]

    @pytest.mark.parametrize(
        "arguments", ["not JSON", '{"path": "a', "[1]", '"text"', "7", '{"a":' * 65 + "1" + "}" * 65, "[" * 90_000]
    )
    async def test_non_object_arguments_make_an_invalid_call(self, ask: AskModel, arguments: str) -> None:
        async with open_scripted_model(respond_raw_tool_call("write_file", arguments)) as (_, model):
            message = await ask(model)
        assert message.tool_calls == []
        assert [call["id"] for call in message.invalid_tool_calls] == ["call_1"]

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (encode_text_event("a b") + encode_sse(STREAM_END, done=True), "a b"),
            (encode_text_event("a").replace(b"data: ", b"data:") + encode_sse(STREAM_END, done=True), "a"),
            ((b"\n\n" + encode_text_event("a") + b"\n\n\n" + encode_sse(STREAM_END, done=True)), "a"),
            (
                b": hello\n\nevent: x\nid: 1\nretry: 5\n"
                + encode_text_event("a")
                + b":\n\n"
                + encode_sse(STREAM_END, done=True),
                "a",
            ),
            ((encode_text_event("a") + encode_sse(STREAM_END, done=True)).replace(b"\n", b"\r\n"), "a"),
            (encode_text_event("a") + encode_sse(STREAM_END) + b"data: [DONE]  \n \n\n", "a"),
            (encode_text_event("a") + b"data: [DONE]\\n\n\n", "a"),
            (encode_text_event("a") + b"data: [DONE]", "a"),
            (encode_text_event("a") + encode_sse(STREAM_END), "a"),
            (encode_text_event("a") + encode_sse(STREAM_END).rstrip(), "a"),
            (encode_text_event("a") + encode_sse(STREAM_END) + b'data: {"usage": {"prompt', "a"),
            (encode_text_event("a") + encode_sse(STREAM_END, {"choices": []}, {"choices": None}, {}, done=True), "a"),
            (
                encode_sse(
                    build_delta(content=None),
                    build_delta(content="a", tool_calls=None, function_call=None),
                    STREAM_END,
                    done=True,
                ),
                "a",
            ),
            (encode_sse({**STREAM_END, "error": None}) + encode_text_event("a") + encode_sse(done=True), "a"),
            (encode_text_event("a") + encode_sse({"choices": [{"delta": None, "finish_reason": "stop"}]}), "a"),
            (encode_sse(build_delta(content=[{"type": "text", "text": "a"}, "b"]), STREAM_END), "ab"),
            (encode_sse({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}), "a"),
            (
                encode_text_event("a") + encode_sse({"choices": [{"index": 1, "delta": {"content": "b"}}]}, STREAM_END),
                "a",
            ),
            (encode_sse(build_delta(refusal="No."), STREAM_END), "No."),
            (
                'data: {"choices":[{"delta":{"content":"a\u2028b\u0085c"}}]}\n\n'.encode() + encode_sse(STREAM_END),
                "a\u2028b\u0085c",
            ),
            (b'data: {"choices":\ndata: [{"delta":{"content":"a"}}]}\n\n' + encode_sse(STREAM_END), "a"),
            (b"\xef\xbb\xbf" + encode_text_event("a") + encode_sse(STREAM_END), "a"),
            (encode_sse(build_delta(content="\ud83d"), build_delta(content="\ude00!"), STREAM_END), "\U0001f600!"),
            (
                encode_sse(build_delta(content="a\0\udc00"), build_delta(content="b\ud83d"), STREAM_END),
                "a\ufffd\ufffdb\ufffd",
            ),
            (
                encode_text_event("[Err") + encode_text_event("or] in line 3") + encode_sse(STREAM_END),
                "[Error] in line 3",
            ),
            (encode_text_event("[Error]") + encode_sse(STREAM_END), "[Error]"),
        ],
    )
    @pytest.mark.parametrize("slices", [None, 1])
    async def test_stream_variants_are_read(self, body: bytes, text: str, slices: int | None) -> None:
        async with open_scripted_model(respond_raw(body, slices=slices), llm_retries=0) as (_, model):
            assert (await stream_answer(model)).content == text

    @pytest.mark.parametrize(
        ("deltas", "read"),
        [
            (
                [
                    [{"index": 0, "id": "1", "function": {"name": "f", "arguments": '{"a"'}}],
                    [_build_arguments_delta(":1}", index=0)],
                ],
                [("1", "f", {"a": 1})],
            ),
            (
                [
                    [{"function": {"name": "f", "arguments": ""}}],
                    [_build_arguments_delta('{"a":1')],
                    [_build_arguments_delta("}")],
                ],
                [(None, "f", {"a": 1})],
            ),
            (
                [
                    [{"id": "1", "function": {"name": "f"}}],
                    [{"id": "1", **_build_arguments_delta("{}")}],
                    [{"id": "2", **_build_arguments_delta("{}")}],
                ],
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
                    [
                        {"index": 1, "id": "2", "function": {"name": "g"}},
                        {"index": 0, "id": "1", **_build_arguments_delta("{}")},
                    ],
                    [_build_arguments_delta('{"b":2}', index=1)],
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
    async def test_tool_call_variants_are_read(self, deltas: Any, read: Any) -> None:
        body = encode_sse(
            *[build_delta(tool_calls=parts) for parts in deltas], build_delta(finish_reason="tool_calls"), done=True
        )
        async with open_scripted_model(respond_raw(body), llm_retries=0) as (_, model):
            message = await stream_answer(model)
        assert [(call["id"], call["name"], call["args"]) for call in message.tool_calls] == read

    async def test_calls_with_one_id_are_kept_apart(self, ask: AskModel) -> None:
        async with open_scripted_model(
            respond_tool_call("read_file", path="a") & respond_tool_call("read_file", path="b")
        ) as (_, model):
            message = await ask(model)
        assert [(call["id"], call["args"]["path"]) for call in message.tool_calls] == [("call_1", "a"), ("call_1", "b")]

    @pytest.mark.parametrize("content_type", [JSON_TYPE, EVENT_STREAM_TYPE])
    async def test_answer_without_streaming_is_read(self, content_type: str) -> None:
        step = respond_text("I look.") & respond_tool_call("read_file", path="a.py")
        body = json.dumps(step.to_completion(), indent=2).encode()
        async with open_scripted_model(respond_raw(body, content_type=content_type)) as (_, model):
            message = await stream_answer(model)
        assert (message.content, message.tool_calls[0]["args"]) == ("I look.", {"path": "a.py"})
        assert message.usage_metadata
        assert message.usage_metadata["total_tokens"] == 15

    async def test_stream_is_read_when_none_was_requested(self) -> None:
        async with open_scripted_model(
            respond_raw(encode_text_event("a") + encode_text_event("b") + encode_sse(STREAM_END, done=True))
        ) as (_, model):
            assert (await invoke_answer(model)).content == "ab"

    async def test_stream_that_stays_open_after_done_is_finished(self) -> None:
        async with open_scripted_model(
            hang_after(encode_text_event("a") + encode_sse(STREAM_END, done=True)), respond_text("Next.")
        ) as (_, model):
            assert (await stream_answer(model)).content == "a"
            assert (await stream_answer(model)).content == "Next."


SILENCE_SECONDS = 130
"""Longer than the time-outs of the settings; the clock skips it."""
SILENT_RESPONDERS = [
    hang_after(seconds=SILENCE_SECONDS),
    hang_after(b": hello\n\n", seconds=SILENCE_SECONDS),
    hang_after(encode_text_event("One"), seconds=SILENCE_SECONDS),
]
PATIENT_SETTINGS = {"llm_timeout_seconds": 1000}
"""Several silent attempts take longer than the settings allow by default."""


TRANSIENT_FAULTS: list[tuple[Responder, type[AgentRuntimeError]]] = [
    (respond_status(500), LLMUnavailable),
    (respond_status(503, Retry_After="0"), LLMUnavailable),
    (respond_status(429, Retry_After="soon"), LLMUnavailable),
    (respond_status(429, Retry_After="Fri, 31 Dec 9999 23:59:59 -1200"), LLMUnavailable),
    (respond_status(408), LLMUnavailable),
    (reset_after(), LLMUnavailable),
    (reset_after(b""), LLMUnavailable),
    (reset_after(b": hello\n\n"), LLMUnavailable),
    (close_after(encode_sse(build_delta(role="assistant"))), LLMUnavailable),
    (respond_raw(encode_sse(build_delta(role="assistant"))), LLMUnavailable),
    (
        close_after(encode_sse(build_delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{"}}]))),
        LLMUnavailable,
    ),
    (SILENT_RESPONDERS[0], LLMUnavailable),
    (SILENT_RESPONDERS[1], LLMUnavailable),
    (respond_raw(encode_sse({"error": {"message": "secret detail", "code": 500}})), LLMUnavailable),
    (respond_raw(b'{"error": "secret detail"}', content_type=JSON_TYPE), LLMUnavailable),
    *((respond_text(f"{fault}: secret detail"), LLMUnavailable) for fault in PROXY_FAULTS),
    (respond_text(f"\n {PROXY_FAULTS[0]}"), LLMUnavailable),
    (respond_raw(b"<html>secret detail</html>", content_type=HTML_TYPE), LLMInvalidAnswer),
    (respond_raw(b"secret detail", content_type=JSON_TYPE), LLMInvalidAnswer),
    (respond_raw(b'{"choices": [{"mess', content_type=JSON_TYPE), LLMInvalidAnswer),
    (respond_raw(b'{"choices": []}', content_type=JSON_TYPE), LLMInvalidAnswer),
    (respond_raw(b'{"choices": [7]}', content_type=JSON_TYPE), LLMInvalidAnswer),
    (respond_raw(b'{"choices": "' + b"x" * 99, content_type=JSON_TYPE), LLMInvalidAnswer),
    (respond_raw(b"[" * 9999, content_type=JSON_TYPE), LLMInvalidAnswer),
    (respond_raw(b'{"a":' * 99_999, content_type=JSON_TYPE), LLMInvalidAnswer),
    (respond_raw(b"data: garbage\n\n"), LLMInvalidAnswer),
    (respond_raw(b"data: 7\n\n"), LLMInvalidAnswer),
    (respond_raw(b"data: " + b"[" * 99_999 + b"\n\n"), LLMInvalidAnswer),
    (respond_raw(b""), LLMInvalidAnswer),
    (respond_raw(gzip.compress(b"a")), LLMInvalidAnswer),
    (respond_text(""), LLMInvalidAnswer),
    (respond_text("  \n"), LLMInvalidAnswer),
    (respond_raw(encode_sse(done=True)), LLMInvalidAnswer),
]


class TestFaults:
    @pytest.mark.parametrize(("step", "error"), TRANSIENT_FAULTS)
    async def test_fault_before_the_first_word_is_retried(
        self, ask: AskModel, step: Responder, error: type[AgentRuntimeError]
    ) -> None:
        async with open_scripted_model(step, step, respond_text("At last."), **PATIENT_SETTINGS) as (llm, model):
            assert (await ask(model)).content == "At last."
            assert len(llm.requests) == 3

    @pytest.mark.parametrize(("step", "error"), TRANSIENT_FAULTS)
    async def test_lasting_fault_is_one_sentence_and_the_next_call_works(
        self, ask: AskModel, step: Responder, error: type[AgentRuntimeError], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "agent_runtime.llm")
        others = {"llm_retries": 1, "internal_api_key": "our-key", **PATIENT_SETTINGS}
        async with open_scripted_model(step, step, respond_text("Hello."), **others) as (llm, model):
            with pytest.raises(error) as failed:
                await ask(model)
            assert (await ask(model)).content == "Hello."
        assert len(llm.requests) == 3
        assert len(caplog.records) == 2
        for said in (str(failed.value), caplog.text):
            assert not any(secret in said for secret in ("our-key", "127.0.0.1", "Traceback"))
        assert "secret" not in str(failed.value)
        assert str(failed.value).endswith(".")

    @pytest.mark.parametrize("code", [302, 400, 401, 402, 403, 404, 413, 422])
    async def test_refused_request_is_not_retried(self, ask: AskModel, code: int) -> None:
        async with open_scripted_model(respond_status(code, Location="/elsewhere"), respond_text("Hello.")) as (
            llm,
            model,
        ):
            with pytest.raises(LLMUnavailable, match=rf"\(status {code}\)\."):
                await ask(model)
            assert len(llm.requests) == 1
            assert (await ask(model)).content == "Hello."

    async def test_refusal_in_the_stream_is_not_retried(self) -> None:
        async with open_scripted_model(respond_raw(encode_sse({"error": {"code": "400", "message": "secret"}}))) as (
            llm,
            model,
        ):
            with pytest.raises(LLMUnavailable, match=r"status 400"):
                await stream_answer(model)
            assert len(llm.requests) == 1

    async def test_long_retry_after_is_reported_to_the_user(self, ask: AskModel) -> None:
        async with open_scripted_model(respond_status(429, Retry_After="3600")) as (llm, model):
            with pytest.raises(LLMUnavailable, match=r"Try again in 3600 seconds\."):
                await ask(model)
            assert len(llm.requests) == 1

    async def test_retry_after_beyond_the_timeout_is_not_awaited(self, ask: AskModel) -> None:
        async with open_scripted_model(respond_status(503, Retry_After="20"), llm_timeout_seconds=10) as (llm, model):
            with pytest.raises(LLMUnavailable):
                await ask(model)
            assert len(llm.requests) == 1

    async def test_refused_connection_is_reported(self, ask: AskModel) -> None:
        async with open_model(build_settings(f"http://127.0.0.1:{find_free_port()}")) as model:
            with pytest.raises(LLMUnavailable, match="could not be reached"):
                await ask(model)

    @pytest.mark.parametrize("sent", [b"", encode_text_event("One")])
    async def test_endless_answer_times_out(self, ask: AskModel, sent: bytes) -> None:
        async def respond_slowly(exchange: Exchange) -> None:
            await exchange.start_stream(sent)
            while True:
                await exchange.send_piece(b":\n")
                await advance_loop_clock(1)

        async with open_scripted_model(respond_slowly, llm_timeout_seconds=30) as (llm, model):
            with pytest.raises(LLMUnavailable):
                await ask(model)
            assert len(llm.requests) == 1

    @pytest.mark.parametrize(
        "step",
        [
            reset_after(encode_text_event("One")),
            close_after(encode_text_event("One")),
            respond_raw(encode_text_event("One")),
            respond_raw(encode_text_event("One") + b'data: {"cho'),
            SILENT_RESPONDERS[2],
        ],
    )
    async def test_fault_after_the_first_word_is_not_retried(self, step: Responder) -> None:
        async with open_scripted_model(step, respond_text("Hello.")) as (llm, model):
            words: list[str] = []
            with pytest.raises(LLMUnavailable, match=r"The model's answer broke off\."):
                await stream_texts(model, words.append)
            assert words == ["One"]
            assert len(llm.requests) == 1
            assert (await stream_answer(model)).content == "Hello."

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (encode_sse({"error": "secret"}), LLMUnavailable),
            (encode_sse({"error": {"code": 429}}), LLMUnavailable),
            (b"data: {garbage\n\n", LLMInvalidAnswer),
        ],
    )
    async def test_bad_event_after_the_first_word_is_not_retried(
        self, bad: bytes, error: type[AgentRuntimeError]
    ) -> None:
        async with open_scripted_model(
            respond_raw(encode_text_event("One") + bad + encode_sse(STREAM_END), slices=len(encode_text_event("One"))),
            respond_text("Hello."),
        ) as (llm, model):
            with pytest.raises(error, match=r"Try again\.$"):
                await stream_answer(model)
            assert len(llm.requests) == 1
            assert (await stream_answer(model)).content == "Hello."

    async def test_truncated_answer_makes_no_partial_call(self) -> None:
        body = encode_sse(
            build_delta(tool_calls=[{"id": "1", **_build_arguments_delta('{"path": "a.py", "content": "ha')}]),
            build_delta("length"),
        )
        async with open_scripted_model(respond_raw(body)) as (_, model):
            message = await stream_answer(model)
        assert (message.tool_calls, len(message.invalid_tool_calls)) == ([], 1)
        assert message.response_metadata["finish_reason"] == "length"

    async def test_reset_after_the_finish_reason_is_no_fault(self) -> None:
        async with open_scripted_model(
            reset_after(encode_text_event("One") + encode_sse(STREAM_END)), llm_retries=0
        ) as (_, model):
            assert (await stream_answer(model)).content == "One"

    @pytest.mark.parametrize("fault", PROXY_FAULTS)
    async def test_proxy_fault_text_is_never_streamed(self, fault: str) -> None:
        words = [encode_text_event(letter) for letter in f"{fault}: connection refused"]
        async with open_scripted_model(
            respond_raw(b"".join(words) + encode_sse(STREAM_END), slices=7), respond_text("Hello.")
        ) as (llm, model):
            assert (await stream_answer(model)).content == "Hello."
            assert len(llm.requests) == 2


class TestLimits:
    async def test_answer_size_is_limited(self, ask: AskModel) -> None:
        endless = respond_raw(b":" + b"x" * MAX_BYTES + b"\n")
        async with open_scripted_model(endless, respond_raw(b'{"' + b" " * MAX_BYTES), respond_text("Hello.")) as (
            llm,
            model,
        ):
            for _ in range(2):
                with pytest.raises(LLMInvalidAnswer, match="too large"):
                    await ask(model)
            assert len(llm.requests) == 2
            assert (await ask(model)).content == "Hello."

    async def test_text_size_is_limited(self) -> None:
        async with open_scripted_model(
            respond_raw(encode_text_event("x" * 9000) * 1000, slices=9_000_000), respond_text("Hello.")
        ) as (_, model):
            with pytest.raises(LLMInvalidAnswer, match="too large"):
                await stream_answer(model)
            assert (await stream_answer(model)).content == "Hello."

    async def test_number_of_tool_calls_is_limited(self, ask: AskModel) -> None:
        many = ScriptedReply(tool_calls=respond_tool_call("read_file", path="a").tool_calls * 10_000)
        async with open_scripted_model(many, respond_text("Hello.")) as (llm, model):
            with pytest.raises(LLMInvalidAnswer, match="too many tools"):
                await ask(model)
            assert (await ask(model)).content == "Hello."
            assert len(llm.requests) == 2


class TestLifecycle:
    async def test_a_cancelled_answer_is_dropped(self, ask: AskModel) -> None:
        async with open_scripted_model(hang_after(), respond_text("Hello.")) as (llm, model):
            asking = asyncio.ensure_future(ask(model))
            await llm.wait_for_requests(1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert (await ask(model)).content == "Hello."

    async def test_the_offline_model_needs_no_server(self) -> None:
        async with open_model(Settings(_env_file=None)) as model:
            assert isinstance(model, OfflineModel)
        assert isinstance(make_studio_model(Settings(_env_file=None)), OfflineModel)

    def test_studio_has_a_client_for_each_event_loop(self) -> None:
        async def call_model() -> str:
            async with ScriptedLLM(respond_text("Hello.")) as llm:
                model = make_studio_model(build_settings(llm.url))
                assert isinstance(model, ProxyModel)
                text = str((await model.ainvoke("Hi")).text)
                await model.service.client().aclose()
                return text

        assert [asyncio.run(call_model()), asyncio.run(call_model())] == ["Hello."] * 2

    async def test_model_is_asynchronous_only(self) -> None:
        async with open_scripted_model() as (_, model):
            with pytest.raises(NotImplementedError):
                model.invoke("Hi")

    async def test_repr_contains_no_address_and_no_key(self) -> None:
        async with open_scripted_model(internal_api_key="our-key", llm_streaming=False) as (llm, model):
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


class TestUnavailableModel:
    """A model that is down gets no requests for a time; the fallback gets them."""

    FAST_BREAKER: ClassVar[dict[str, Any]] = {"llm_retries": 0, "llm_breaker_failures": 2, "llm_breaker_seconds": 60}

    async def test_breaker_opens_after_consecutive_failures(self, ask: AskModel) -> None:
        async with open_scripted_model(
            respond_status(500), reset_after(), respond_text("Too early."), **self.FAST_BREAKER
        ) as (llm, model):
            for _ in range(2):
                with pytest.raises(LLMUnavailable):
                    await ask(model)
            with pytest.raises(LLMUnavailable, match=r"^The model service is down\. Try again in \d+ seconds\.$"):
                await ask(model)
            assert len(llm.requests) == 2

    async def test_retries_end_when_the_breaker_opens(self, ask: AskModel) -> None:
        async with open_scripted_model(*[respond_status(500)] * 5, llm_retries=4, llm_breaker_failures=2) as (
            llm,
            model,
        ):
            with pytest.raises(LLMUnavailable, match=r"^The model service is down\. Try again in"):
                await ask(model)
            assert len(llm.requests) == 2

    @pytest.mark.parametrize(
        "between", [respond_text("Fine."), respond_status(400), respond_raw(encode_sse(STREAM_END, done=True))]
    )
    async def test_answer_or_refusal_resets_the_failure_count(self, ask: AskModel, between: Responder) -> None:
        async with open_scripted_model(
            respond_status(500), between, respond_status(500), respond_text("Still asked."), **self.FAST_BREAKER
        ) as (_, model):
            for _ in range(3):
                with suppress(AgentRuntimeError):
                    await ask(model)
            assert (await ask(model)).content == "Still asked."

    async def test_breaker_lets_one_probe_through(self, ask: AskModel) -> None:
        given = {**self.FAST_BREAKER, "llm_breaker_seconds": 1e-9}
        gate = asyncio.Event()
        steps: list[Responder] = [
            respond_status(500),
            respond_status(500),
            respond_text("Back.", after=gate),
            respond_text("All is well."),
        ]
        async with open_scripted_model(*steps, **given) as (llm, model):
            for _ in range(2):
                with pytest.raises(LLMUnavailable):
                    await ask(model)
            probe = asyncio.ensure_future(ask(model))
            await llm.wait_for_requests(3)
            with pytest.raises(LLMUnavailable, match=r"^The model service is down\. Try again in a moment\.$"):
                await ask(model)
            gate.set()
            assert (await probe).content == "Back."
            assert (await ask(model)).content == "All is well."

    async def test_cancelled_probe_allows_another(self, ask: AskModel) -> None:
        given = {**self.FAST_BREAKER, "llm_breaker_seconds": 1e-9}
        async with open_scripted_model(
            respond_status(500), respond_status(500), hang_after(), respond_text("Back."), **given
        ) as (llm, model):
            for _ in range(2):
                with pytest.raises(LLMUnavailable):
                    await ask(model)
            probe = asyncio.ensure_future(ask(model))
            await llm.wait_for_requests(3)
            probe.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probe
            assert (await ask(model)).content == "Back."

    async def test_older_attempt_does_not_allow_a_second_probe(self, ask: AskModel) -> None:
        given = {**self.FAST_BREAKER, "llm_breaker_failures": 1, "llm_breaker_seconds": 1e-9}
        async with open_scripted_model(
            hang_after(), respond_status(500), hang_after(), respond_text("Too early."), **given
        ) as (llm, model):
            older = asyncio.ensure_future(ask(model))
            await llm.wait_for_requests(1)
            with pytest.raises(LLMUnavailable):
                await ask(model)
            probe = asyncio.ensure_future(ask(model))
            await llm.wait_for_requests(3)
            for asking in (older, probe):
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                if asking is older:
                    with pytest.raises(LLMUnavailable, match=r"^The model service is down\. Try again in a moment\.$"):
                        await ask(model)

    async def test_first_word_of_a_probe_closes_the_breaker(self) -> None:
        given = {**self.FAST_BREAKER, "llm_breaker_failures": 1, "llm_breaker_seconds": 1e-9}
        async with open_scripted_model(
            respond_status(500), hang_after(encode_text_event("Back")), respond_text("All is well."), **given
        ) as (_, model):
            with pytest.raises(LLMUnavailable):
                await stream_answer(model)
            probe = model.astream("Hi")
            assert (await anext(probe)).content == "Back"
            assert (await stream_answer(model)).content == "All is well."
            await probe.aclose()  # type: ignore[attr-defined]

    async def test_fallback_answers_after_the_last_attempt(self, ask: AskModel) -> None:
        steps: list[Responder] = [respond_status(500), reset_after(), respond_text("From the other.")]
        async with open_scripted_model(*steps, llm_retries=1, llm_fallback_model="other") as (llm, model):
            answer = await ask(model)
        assert (answer.content, answer.response_metadata["model_name"]) == ("From the other.", "other")
        assert [request.body["model"] for request in llm.requests] == ["scripted", "scripted", "other"]

    async def test_model_name_is_in_the_metadata(self, ask: AskModel) -> None:
        async with open_scripted_model(respond_text("Hello."), llm_fallback_model="other") as (_, model):
            assert (await ask(model)).response_metadata["model_name"] == "scripted"

    async def test_open_breakers_prevent_further_requests(self, ask: AskModel) -> None:
        steps: list[Responder] = [respond_status(500), respond_status(500), respond_text("One."), respond_text("Two.")]
        async with open_scripted_model(
            *steps, **{**self.FAST_BREAKER, "llm_breaker_failures": 1}, llm_fallback_model="other"
        ) as (llm, model):
            with pytest.raises(LLMUnavailable):
                await ask(model)
            with pytest.raises(LLMUnavailable, match=r"^The model service is down\. Try again in"):
                await ask(model)
            assert [request.body["model"] for request in llm.requests] == ["scripted", "other"]

    @pytest.mark.parametrize("step", [respond_status(400), respond_status(401), respond_status(403)])
    async def test_refused_request_does_not_use_the_fallback(self, ask: AskModel, step: Responder) -> None:
        async with open_scripted_model(step, respond_text("No."), llm_fallback_model="other") as (llm, model):
            with pytest.raises(LLMUnavailable, match="refused"):
                await ask(model)
            assert len(llm.requests) == 1

    @pytest.mark.parametrize("status", [402, 404, 413])
    async def test_refusal_of_one_model_uses_the_fallback(self, ask: AskModel, status: int) -> None:
        async with open_scripted_model(respond_status(status), respond_text("Here."), llm_fallback_model="other") as (
            llm,
            model,
        ):
            assert (await ask(model)).content == "Here."
        assert [request.body["model"] for request in llm.requests] == ["scripted", "other"]

    async def test_long_rate_limit_uses_the_fallback(self, ask: AskModel) -> None:
        async with open_scripted_model(
            respond_status(429, Retry_After="3600"), respond_text("Here."), llm_fallback_model="other"
        ) as (_, model):
            assert (await ask(model)).content == "Here."

    async def test_fallback_is_not_used_after_the_first_word(self) -> None:
        heard: list[str] = []
        async with open_scripted_model(
            reset_after(encode_text_event("One")), respond_text("Two."), llm_fallback_model="other"
        ) as (llm, model):
            with pytest.raises(LLMUnavailable, match="broke off"):
                await stream_texts(model, heard.append)
            assert len(llm.requests) == 1
        assert heard == ["One"]

    async def test_silent_model_leaves_half_of_the_time_to_the_fallback(self, ask: AskModel) -> None:
        async with open_scripted_model(
            hang_after(seconds=21), respond_text("In time."), llm_timeout_seconds=40, llm_fallback_model="other"
        ) as (_, model):
            assert (await ask(model)).content == "In time."

    @pytest.mark.parametrize("sent", [b"", b": wait\n\n"])
    async def test_keepalive_bytes_are_not_a_first_word(self, ask: AskModel, sent: bytes) -> None:
        async def send_keepalives(exchange: Exchange) -> None:
            await exchange.start_stream()
            while True:
                await exchange.send_piece(sent or b"\n")
                await advance_loop_clock(1)

        async with open_scripted_model(
            send_keepalives, respond_text("In time."), llm_timeout_seconds=40, llm_fallback_model="other"
        ) as (_, model):
            assert (await ask(model)).content == "In time."

    @pytest.mark.parametrize("head", [encode_sse(build_delta(role="assistant")), b'{"choices": [{"message":'])
    async def test_started_answer_may_take_more_than_half_of_the_time(self, ask: AskModel, head: bytes) -> None:
        async def respond_slowly(exchange: Exchange) -> None:
            await exchange.start_stream(head)
            for _ in range(25):
                await exchange.send_piece(b"\n")
                await advance_loop_clock(1)
            rest = (
                b' {"content": "Late."}}]}'
                if head.startswith(b"{")
                else encode_text_event("Late.") + encode_sse(STREAM_END, done=True)
            )
            await exchange.send_piece(rest)
            await exchange.send_piece(b"")

        patience = {"llm_timeout_seconds": 40, "llm_fallback_model": "other"}
        async with open_scripted_model(respond_slowly, **patience) as (_, model):
            assert (await ask(model)).content == "Late."

    async def test_first_byte_has_a_timeout_of_its_own(self) -> None:
        patience = {"llm_first_byte_timeout_seconds": 60, "llm_idle_timeout_seconds": 20, "llm_retries": 0}

        async def respond_late(exchange: Exchange) -> None:
            await advance_loop_clock(50)
            await hang_after(encode_text_event("One"), seconds=21)(exchange)

        async with open_scripted_model(respond_late, **patience) as (_, model):
            heard: list[str] = []
            with pytest.raises(LLMUnavailable, match="broke off"):
                await stream_texts(model, heard.append)
        assert heard == ["One"]

    async def test_retry_after_date_is_awaited_or_reported(self, ask: AskModel) -> None:
        async with open_scripted_model(retry_in_hours(-1), respond_text("Hello.")) as (_, model):
            assert (await ask(model)).content == "Hello."
        async with open_scripted_model(retry_in_hours(1)) as (llm, model):
            with pytest.raises(LLMUnavailable, match=r"Try again in (3599|3600) seconds\."):
                await ask(model)
            assert len(llm.requests) == 1
        async with open_scripted_model(respond_status(429, Retry_After="10000000")) as (llm, model):
            with pytest.raises(LLMUnavailable, match=r"Try again in 10000000 seconds\."):
                await ask(model)
            assert len(llm.requests) == 1


def retry_in_hours(hours: int) -> Responder:
    """Refuse the request until a date, which counts from the moment of the answer."""

    async def respond(exchange: Exchange) -> None:
        moment = format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)
        await respond_status(429, Retry_After=moment)(exchange)

    return respond


class TestAgentSettings:
    """An agent's file may name a model and a temperature of its own."""

    async def test_model_and_temperature_are_sent(self) -> None:
        agent = AGENTS["ask"].model_copy(update={"model": "small", "temperature": 0.0})
        async with open_scripted_model(respond_text("Hello."), llm_fallback_model="other") as (llm, model):
            await ask_agent(model, agent, [HumanMessage("Hi")], StreamOptions(), lambda _: None)
        assert (llm.requests[0].body["model"], llm.requests[0].body["temperature"]) == ("small", 0.0)

    async def test_settings_apply_without_agent_values(self) -> None:
        async with open_scripted_model(respond_text("Hello.")) as (llm, model):
            await ask_agent(model, AGENTS["ask"], [HumanMessage("Hi")], StreamOptions(), lambda _: None)
        assert llm.requests[0].body["model"] == "scripted"
        assert "temperature" not in llm.requests[0].body

    async def test_fallback_replaces_the_model_of_an_agent(self) -> None:
        agent = AGENTS["ask"].model_copy(update={"model": "small"})
        async with open_scripted_model(
            respond_status(500), respond_text("Hello."), llm_retries=0, llm_fallback_model="other"
        ) as (llm, model):
            await ask_agent(model, agent, [HumanMessage("Hi")], StreamOptions(), lambda _: None)
        assert [request.body["model"] for request in llm.requests] == ["small", "other"]
