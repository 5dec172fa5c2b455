"""A model service that misbehaves on a real socket ends a turn with an answer or with one error chunk.

The history has nothing of the broken answer, and the session continues with the next message.
"""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from graph.settings import Settings
from tests.support.llm_server import (
    DEFAULT_USAGE,
    HTML_TYPE,
    JSON_TYPE,
    Responder,
    ScriptedLLM,
    ScriptedReply,
    build_delta,
    close_after,
    cut_off,
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
from tests.support.service import (
    GatewayClient,
    SessionClient,
    agent_switch_chunk,
    settings_for,
    start_service,
    text_chunk,
    tool_call_chunk,
)

FIRST_WORD = encode_sse(build_delta(content="One"))
STREAM_END = encode_sse({**build_delta(finish_reason="stop"), "usage": DEFAULT_USAGE})
PARTIAL_CALL = encode_sse(
    build_delta(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "echo", "arguments": '{"te'}}])
)
PARTIAL_CALL_OF_1_MB = PARTIAL_CALL.replace(b"te", b"x" * 2**20)
UNICODE_LINES = "a\u2028b\u2029c\u0085d"
UNIVERSAL_SWITCH = agent_switch_chunk(
    "orchestrator", "universal", "There is no other agent.", confidence="high", classification_method="keywords"
)

SILENCE_SECONDS = 21
"""The clock skips it. Two of them, in two attempts, are shorter than the time-out of the tests' client."""
SHORT_TIMEOUTS = {"llm_first_byte_timeout_seconds": 20, "llm_idle_timeout_seconds": 20}

Chunks = list[dict[str, Any]]
FaultTable = dict[str, tuple[Responder, Chunks]]


def error_chunks(code: str, sentence: str) -> Chunks:
    return [{"type": "error", "error": sentence, "metadata": {"code": code}, "is_final": True}]


def unavailable_chunks(cause: str, when: str = "in a moment") -> Chunks:
    return error_chunks("llm_unavailable", f"The model service is overloaded or down ({cause}). Try again {when}.")


def rate_limit_chunks(when: str = "in a moment") -> Chunks:
    return error_chunks(
        "llm_unavailable", f"The rate limit of the model service is reached (status 429). Try again {when}."
    )


UNREACHABLE = error_chunks("llm_unavailable", "The model service could not be reached. Try again in a moment.")
TIMED_OUT = error_chunks("llm_unavailable", "The model did not answer in time. Try again, or ask for less in one step.")
BROKEN_OFF = error_chunks("llm_unavailable", "The model's answer broke off. Try again.")
UNREADABLE = error_chunks(
    "llm_invalid_answer", "The model service sent something that is no model's answer. Try again."
)
TOO_MANY_CALLS = error_chunks(
    "llm_invalid_answer", "The model asked for too many tools at once. Ask for less in one step."
)
FILTERED = error_chunks(
    "llm_invalid_answer",
    "The content filter of the model's service blocked the answer. Put the request in other words.",
)
LIMIT_WITHOUT_AN_ANSWER = error_chunks(
    "llm_invalid_answer",
    "The model reached its output limit before it wrote an answer. Try again, or ask for less in one step.",
)
TOO_LARGE = error_chunks("llm_invalid_answer", "The model's answer is too large. Ask for less in one step.")

TRANSIENT_FAULTS: FaultTable = {
    "500": (respond_status(500), unavailable_chunks("status 500")),
    "429": (respond_status(429), rate_limit_chunks()),
    "429, now": (respond_status(429, Retry_After="0"), rate_limit_chunks()),
    "hang at the first byte": (hang_after(seconds=SILENCE_SECONDS), TIMED_OUT),
    "hang after the head": (hang_after(b"", seconds=SILENCE_SECONDS), TIMED_OUT),
    "hang in a call": (hang_after(PARTIAL_CALL, seconds=SILENCE_SECONDS), TIMED_OUT),
    "reset": (reset_after(), BROKEN_OFF),
    "reset after the head": (reset_after(b""), BROKEN_OFF),
    "reset in a call": (reset_after(PARTIAL_CALL), BROKEN_OFF),
    "no end of a call": (respond_raw(PARTIAL_CALL), BROKEN_OFF),
    "garbage": (respond_raw(bytes(range(256)) * 99), UNREADABLE),
    "garbage for an event": (respond_raw(b"data: \xff\xfe\x00\n\n"), UNREADABLE),
    "HTML": (respond_raw(b"<!doctype html><title>502 Bad Gateway</title>", content_type=HTML_TYPE), UNREADABLE),
    "half JSON": (respond_raw(b'{"choices": [{"message": {"content": "One', content_type=JSON_TYPE), UNREADABLE),
    "an error for its end": (respond_raw(PARTIAL_CALL + encode_sse(build_delta("error"), done=True)), BROKEN_OFF),
    "a call that its service could not read": (
        respond_raw(encode_sse(build_delta("function_call_filter: MALFORMED_FUNCTION_CALL"), done=True)),
        BROKEN_OFF,
    ),
    "a document with an error for its end": (
        respond_raw(json.dumps(cut_off(respond_text("One"), "network_error").to_completion()).encode()),
        BROKEN_OFF,
    ),
    "thoughts up to the limit": (
        respond_raw(encode_sse(build_delta(reasoning_content="Well"), build_delta("length"), done=True)),
        LIMIT_WITHOUT_AN_ANSWER,
    ),
    "half an event": (respond_raw(b'data: {"choices": [{"delta": {"content": "One'), UNREADABLE),
}
"""Faults that a retry may mend, since nothing was forwarded yet; each with the chunks if it does not."""

PERMANENT_FAULTS: FaultTable = {
    "429, in an hour": (respond_status(429, Retry_After="3600"), rate_limit_chunks("in 3600 seconds")),
    "10,000 calls": (ScriptedReply(tool_calls=respond_tool_call("echo", text="a").tool_calls * 10_000), TOO_MANY_CALLS),
    "a content filter": (respond_raw(encode_sse(build_delta("content_filter"), done=True)), FILTERED),
    "50 MB in a call": (respond_raw(PARTIAL_CALL_OF_1_MB * 50, slices=2**20), TOO_LARGE),
    "50 MB of JSON": (
        respond_raw(b'{"choices": "' + b"x" * 50 * 2**20, content_type=JSON_TYPE, slices=2**20),
        TOO_LARGE,
    ),
}
"""Faults that a retry would not mend."""

MIDSTREAM_FAULTS: FaultTable = {
    "hang in the text": (hang_after(FIRST_WORD, seconds=SILENCE_SECONDS), BROKEN_OFF),
    "reset in the text": (reset_after(FIRST_WORD), BROKEN_OFF),
    "close in the text": (close_after(FIRST_WORD), BROKEN_OFF),
    "no end of the text": (respond_raw(FIRST_WORD), BROKEN_OFF),
    "hang in a call after text": (hang_after(FIRST_WORD + PARTIAL_CALL, seconds=SILENCE_SECONDS), BROKEN_OFF),
    "an error after text": (
        respond_raw(FIRST_WORD + encode_sse({"error": {"code": 500}}), slices=len(FIRST_WORD)),
        BROKEN_OFF,
    ),
    "an error for its end after text": (
        respond_raw(FIRST_WORD + encode_sse(build_delta("error"), done=True), slices=len(FIRST_WORD)),
        BROKEN_OFF,
    ),
    "an error and a stop after text": (
        respond_raw(FIRST_WORD + encode_sse(build_delta("ERROR")) + STREAM_END, slices=len(FIRST_WORD)),
        BROKEN_OFF,
    ),
    "HTML after text": (respond_raw(FIRST_WORD + b"data: <html>\n\n", slices=len(FIRST_WORD)), BROKEN_OFF),
    "10,000 calls after text": (
        respond_text("One") & ScriptedReply(tool_calls=respond_tool_call("echo").tool_calls * 10_000),
        TOO_MANY_CALLS,
    ),
    "50 MB after text": (respond_raw(FIRST_WORD + PARTIAL_CALL_OF_1_MB * 50, slices=2**20), TOO_LARGE),
}
"""Faults after forwarded words, which a retry would repeat."""

UNUSUAL_ANSWERS: FaultTable = {
    "slices of one byte": (
        respond_raw(encode_sse(build_delta(content="Hel"), build_delta(content="lo.")) + STREAM_END, slices=1),
        [text_chunk("Hello.")],
    ),
    "U+2028": (
        respond_raw(f'data: {{"choices":[{{"delta":{{"content":"{UNICODE_LINES}"}}}}]}}\n\n'.encode() + STREAM_END),
        [text_chunk(UNICODE_LINES)],
    ),
    "no [DONE]": (respond_raw(encode_sse(build_delta(content="Hello.")) + STREAM_END), [text_chunk("Hello.")]),
    "no end after [DONE]": (
        hang_after(encode_sse(build_delta(content="Hello.")) + STREAM_END + encode_sse(done=True)),
        [text_chunk("Hello.")],
    ),
    "a call in slices of one byte": (
        respond_raw(
            encode_sse(*respond_tool_call("search_in_code", query=UNICODE_LINES).iter_events(), done=True), slices=1
        ),
        [tool_call_chunk("search_in_code", query=UNICODE_LINES)],
    ),
    "a call without [DONE]": (
        respond_raw(encode_sse(*respond_tool_call("read_file", path="a.py").iter_events())),
        [tool_call_chunk("read_file", path="a.py")],
    ),
}
"""Answers in an unusual form."""


def parametrize_faults(*tables: FaultTable) -> pytest.MarkDecorator:
    found = [pytest.param(name, *row, id=name) for table in tables for name, row in table.items()]
    return pytest.mark.parametrize(("name", "step", "chunks"), found)


@asynccontextmanager
async def start_scripted_service(
    folder: Path, *steps: Responder, **changes: Any
) -> AsyncIterator[tuple[ScriptedLLM, GatewayClient]]:
    async with ScriptedLLM(*steps) as llm, start_service(None, build_settings(folder, llm.url, **changes)) as client:
        yield llm, client


def build_settings(folder: Path, url: str, **changes: Any) -> Settings:
    given = {"llm_model": "scripted", "llm_proxy_url": url, "llm_retries": 1, "llm_retry_delay_seconds": 0}
    return settings_for(folder, **{"multi_agent_mode": False, **given, **changes})


def drop_request_ids(chunks: Chunks) -> Chunks:
    """Remove the ids under which the log has the errors."""
    for chunk in chunks:
        chunk.get("metadata", {}).pop("request_id", None)
    return chunks


async def check_session_continues(session: SessionClient, llm: ScriptedLLM, *earlier_messages: dict[str, Any]) -> None:
    """Check that the next message is answered, and that neither the model nor the history has anything of the fault."""
    llm.steps.append(respond_text("All is well."))
    assert await session.send_text("Are you there?") == [text_chunk("All is well.")]
    conversation = [
        {"role": "user", "content": "Hello"},
        *earlier_messages,
        {"role": "user", "content": "Are you there?"},
    ]
    between = [] if earlier_messages else [{"role": "assistant", "content": "(no answer)"}]
    assert llm.requests[-1].body["messages"][1:] == [*conversation[:-1], *between, conversation[-1]]
    assert await session.fetch_history() == [*conversation, {"role": "assistant", "content": "All is well."}]


@parametrize_faults(TRANSIENT_FAULTS)
async def test_transient_fault_is_retried_and_a_lasting_one_is_one_error(
    tmp_path: Path, name: str, step: Responder, chunks: Chunks
) -> None:
    async with start_scripted_service(tmp_path, step, respond_text("Hello."), **SHORT_TIMEOUTS) as (llm, client):
        one, other = client.open_session("s-1"), client.open_session("s-2")
        assert await one.send_text("Hello") == [UNIVERSAL_SWITCH, text_chunk("Hello.")]
        assert len(llm.requests) == 2
        await check_session_continues(one, llm, {"role": "assistant", "content": "Hello."})
        llm.steps += [step, step]
        assert drop_request_ids(await other.send_text("Hello")) == [UNIVERSAL_SWITCH, *chunks]
        await check_session_continues(other, llm)


@parametrize_faults(PERMANENT_FAULTS)
async def test_permanent_fault_is_one_error_without_a_retry(
    tmp_path: Path, name: str, step: Responder, chunks: Chunks
) -> None:
    async with start_scripted_service(tmp_path, step) as (llm, client):
        assert drop_request_ids(await client.open_session().send_text("Hello")) == [UNIVERSAL_SWITCH, *chunks]
        assert len(llm.requests) == 1
        await check_session_continues(client.open_session(), llm)


@parametrize_faults(MIDSTREAM_FAULTS)
async def test_partial_answer_is_streamed_but_not_stored(
    tmp_path: Path, name: str, step: Responder, chunks: Chunks
) -> None:
    async with start_scripted_service(tmp_path, step, **SHORT_TIMEOUTS) as (llm, client):
        told = {"type": "assistant_message", "token": "One", "is_final": False}
        assert drop_request_ids(await client.open_session("s-1", tokens=True).send_text("Hello")) == [
            UNIVERSAL_SWITCH,
            told,
            *chunks,
        ]
        assert len(llm.requests) == 1
        await check_session_continues(client.open_session("s-1"), llm)
        llm.steps.append(step)
        assert drop_request_ids(await client.open_session("s-2").send_text("Hello")) == [UNIVERSAL_SWITCH, *chunks]
        await check_session_continues(client.open_session("s-2"), llm)


@parametrize_faults(UNUSUAL_ANSWERS)
async def test_unusual_stream_is_still_an_answer(tmp_path: Path, name: str, step: Responder, chunks: Chunks) -> None:
    async with start_scripted_service(tmp_path, step) as (llm, client):
        assert await client.open_session().send_text("Hello") == [UNIVERSAL_SWITCH, *chunks]
        assert len(llm.requests) == 1


async def test_refused_connection_is_one_error(tmp_path: Path) -> None:
    port = find_free_port()
    async with start_service(None, build_settings(tmp_path, f"http://127.0.0.1:{port}")) as client:
        assert drop_request_ids(await client.open_session().send_text("Hello")) == [UNIVERSAL_SWITCH, *UNREACHABLE]
        async with ScriptedLLM(port=port) as llm:
            await check_session_continues(client.open_session(), llm)


async def test_connect_timeout_is_one_error(tmp_path: Path) -> None:
    with ExitStack() as queue:
        port = fill_backlog(queue)
        settings = build_settings(tmp_path, f"http://127.0.0.1:{port}", llm_connect_timeout_seconds=0.3)
        async with start_service(None, settings) as client:
            assert drop_request_ids(await client.open_session().send_text("Hello")) == [UNIVERSAL_SWITCH, *UNREACHABLE]
            queue.close()
            async with ScriptedLLM(port=port) as llm:
                await check_session_continues(client.open_session(), llm)


def fill_backlog(queue: ExitStack) -> int:
    """Return the port of a listener whose queue is full: connections wait until `queue` is closed."""
    listener = queue.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(4):
        waiting = queue.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listener.getsockname())
    port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (respond_raw_tool_call("echo", "not JSON"), "The arguments are not a JSON object: not JSON"),
        (respond_raw_tool_call("echo", '{"text": "ha'), 'The arguments are not a JSON object: {"text": "ha'),
        (respond_raw_tool_call("echo", r'"\u0000\ud800"'), "The arguments are not a JSON object: \ufffd\ufffd"),
        (respond_tool_call("rm_rf", path="/"), "There is no tool 'rm_rf'. There are: "),
    ],
)
async def test_invalid_call_is_returned_to_the_model(tmp_path: Path, call: ScriptedReply, told: str) -> None:
    async with start_scripted_service(tmp_path, call, respond_text("Sorry.")) as (llm, client):
        said = await client.open_session().send_text("Hello")
        assert said[-1] == text_chunk("Sorry.")
        assert [chunk["type"] for chunk in said].count("tool_call") == 0
        _, _, asked, answer = llm.requests[-1].body["messages"]
        assert answer["content"].startswith(told)
        assert answer["tool_call_id"] == asked["tool_calls"][0]["id"]
        assert isinstance(json.loads(asked["tool_calls"][0]["function"]["arguments"]), dict)


async def test_duplicate_call_ids_are_replaced(tmp_path: Path) -> None:
    twins = respond_tool_call("read_file", path="a.py") & respond_tool_call("read_file", path="b.py")
    async with start_scripted_service(
        tmp_path, twins, respond_tool_call("read_file", path="c.py"), respond_text("Read.")
    ) as (llm, client):
        session = client.open_session(parallel_tools=True)
        _, first, second = await session.send_text("Hello")
        assert first == tool_call_chunk("read_file", path="a.py") | {"is_final": False}
        assert second == tool_call_chunk("read_file", second["call_id"], path="b.py")
        assert await session.send_result("a") == []
        (third,) = await session.send_result("b", second["call_id"])
        assert third == tool_call_chunk("read_file", third["call_id"], path="c.py")
        assert await session.send_result("c", third["call_id"]) == [text_chunk("Read.")]
        asked = ["call_1", second["call_id"], third["call_id"]]
        assert len({*asked}) == 3
        heard = llm.requests[-1].body["messages"]
        assert [(m["tool_call_id"], m["content"]) for m in heard if m["role"] == "tool"] == [
            *zip(asked, "abc", strict=True)
        ]
