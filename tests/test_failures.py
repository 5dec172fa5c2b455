"""A model's service that misbehaves on a real socket, as the client at the front door lives through it.

Whatever comes, it ends in an answer or in one error chunk; the history holds nothing of what broke, and the session
goes on with the next message.
"""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from graph.settings import Settings
from tests.langgraph_dev import free_port
from tests.llm_server import (
    HTML,
    JSON,
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
from tests.service import Client, Session, service, settings_for, switched, text, tool_call

pytestmark = pytest.mark.anyio

ONE = sse(delta(content="One"))
END = sse(delta(finish_reason="stop"))
HALF_A_CALL = sse(delta(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "echo", "arguments": '{"te'}}]))
MEGABYTE_OF_A_CALL = HALF_A_CALL.replace(b"te", b"x" * 2**20)
LINES = "a\u2028b\u2029c\u0085d"
UNIVERSAL = switched(
    "orchestrator", "universal", "There is no other agent.", confidence="high", classification_method="keywords"
)

Chunks = list[dict[str, Any]]
Table = dict[str, tuple[Step, Chunks]]


def error(code: str, sentence: str) -> Chunks:
    return [{"type": "error", "error": sentence, "metadata": {"code": code}, "is_final": True}]


def down(cause: str, when: str = "in a moment") -> Chunks:
    return error("llm_unavailable", f"The model service is overloaded or down ({cause}). Try again {when}.")


UNREACHABLE = error("llm_unavailable", "The model service could not be reached. Try again in a moment.")
LATE = error("llm_unavailable", "The model did not answer in time. Try again, or ask for less in one step.")
CUT = error("llm_unavailable", "The model's answer broke off. Try again.")
UNREADABLE = error("llm_invalid_answer", "The model service sent something that is no model's answer. Try again.")
TOO_MANY = error("llm_invalid_answer", "The model asked for too many tools at once. Ask for less in one step.")
TOO_LARGE = error("llm_invalid_answer", "The model's answer is too large. Ask for less in one step.")

PASSING: Table = {
    "500": (status(500), down("status 500")),
    "429": (status(429), down("status 429")),
    "429, now": (status(429, Retry_After="0"), down("status 429")),
    "hang at the first byte": (hangs(), LATE),
    "hang after the head": (hangs(b""), LATE),
    "hang in a call": (hangs(HALF_A_CALL), LATE),
    "reset": (resets(), CUT),
    "reset after the head": (resets(b""), CUT),
    "reset in a call": (resets(HALF_A_CALL), CUT),
    "no end of a call": (raw(HALF_A_CALL), CUT),
    "garbage": (raw(bytes(range(256)) * 99), UNREADABLE),
    "garbage for an event": (raw(b"data: \xff\xfe\x00\n\n"), UNREADABLE),
    "HTML": (raw(b"<!doctype html><title>502 Bad Gateway</title>", content_type=HTML), UNREADABLE),
    "half JSON": (raw(b'{"choices": [{"message": {"content": "One', content_type=JSON), UNREADABLE),
    "half an event": (raw(b'data: {"choices": [{"delta": {"content": "One'), UNREADABLE),
}
"""What may be over at the next attempt, as nothing was forwarded yet; and what is said if it is not."""

FINAL: Table = {
    "429, in an hour": (status(429, Retry_After="3600"), down("status 429", "in 3600 seconds")),
    "10,000 calls": (Reply(tool_calls=calls("echo", text="a").tool_calls * 10_000), TOO_MANY),
    "50 MB in a call": (raw(MEGABYTE_OF_A_CALL * 50, slices=2**20), TOO_LARGE),
    "50 MB of JSON": (raw(b'{"choices": "' + b"x" * 50 * 2**20, content_type=JSON, slices=2**20), TOO_LARGE),
}
"""What another attempt would not make better."""

BEGUN: Table = {
    "hang in the text": (hangs(ONE), CUT),
    "reset in the text": (resets(ONE), CUT),
    "close in the text": (breaks(ONE), CUT),
    "no end of the text": (raw(ONE), CUT),
    "hang in a call after text": (hangs(ONE + HALF_A_CALL), CUT),
    "an error after text": (raw(ONE + sse({"error": {"code": 500}}), slices=len(ONE)), CUT),
    "HTML after text": (raw(ONE + b"data: <html>\n\n", slices=len(ONE)), UNREADABLE),
    "10,000 calls after text": (says("One") & Reply(tool_calls=calls("echo").tool_calls * 10_000), TOO_MANY),
    "50 MB after text": (raw(ONE + MEGABYTE_OF_A_CALL * 50, slices=2**20), TOO_LARGE),
}
"""Words were forwarded before it: another attempt would say them twice."""

ODD: Table = {
    "slices of one byte": (raw(sse(delta(content="Hel"), delta(content="lo.")) + END, slices=1), [text("Hello.")]),
    "U+2028": (raw(f'data: {{"choices":[{{"delta":{{"content":"{LINES}"}}}}]}}\n\n'.encode() + END), [text(LINES)]),
    "no [DONE]": (raw(sse(delta(content="Hello.")) + END), [text("Hello.")]),
    "no end after [DONE]": (hangs(sse(delta(content="Hello.")) + END + sse(done=True)), [text("Hello.")]),
    "a call in slices of one byte": (
        raw(sse(*calls("search_in_code", query=LINES).events(), done=True), slices=1),
        [tool_call("search_in_code", query=LINES)],
    ),
    "a call without [DONE]": (
        raw(sse(*calls("read_file", path="a.py").events())),
        [tool_call("read_file", path="a.py")],
    ),
}
"""Not as the book has it, and still an answer."""


def rows(*tables: Table) -> pytest.MarkDecorator:
    found = [pytest.param(name, *row, id=name) for table in tables for name, row in table.items()]
    return pytest.mark.parametrize(("name", "step", "chunks"), found)


def impatient(name: str) -> dict[str, float]:
    """Only where silence is the story: a slow machine is silent, too."""
    seconds = {"llm_first_byte_timeout_seconds": 1.0, "llm_idle_timeout_seconds": 1.0}
    return seconds if name.startswith("hang") else {}


@asynccontextmanager
async def talk(folder: Path, *steps: Step, **changes: Any) -> AsyncIterator[tuple[ScriptedLLM, Client]]:
    async with ScriptedLLM(*steps) as llm, service(None, asking(folder, llm.url, **changes)) as client:
        yield llm, client


def asking(folder: Path, url: str, **changes: Any) -> Settings:
    given = {"llm_model": "scripted", "llm_proxy_url": url, "llm_retries": 1, "llm_retry_delay_seconds": 0}
    return settings_for(folder, **{"multi_agent_mode": False, **given, **changes})


def unsigned(chunks: Chunks) -> Chunks:
    """Without the id under which the log has it."""
    for chunk in chunks:
        chunk.get("metadata", {}).pop("request_id", None)
    return chunks


async def goes_on(session: Session, llm: ScriptedLLM, *said_before: dict[str, Any]) -> None:
    """The next message is answered, and neither the model nor the history has heard of what broke."""
    llm.steps.append(says("All is well."))
    assert await session.user("Are you there?") == [text("All is well.")]
    conversation = [{"role": "user", "content": "Hello"}, *said_before, {"role": "user", "content": "Are you there?"}]
    assert llm.requests[-1].body["messages"][1:] == conversation
    assert await session.history() == [*conversation, {"role": "assistant", "content": "All is well."}]


@rows(PASSING)
async def test_what_passes_is_not_noticed_and_what_stays_is_one_error(
    tmp_path: Path, name: str, step: Step, chunks: Chunks
) -> None:
    async with talk(tmp_path, step, says("Hello."), **impatient(name)) as (llm, client):
        one, other = client.session("s-1"), client.session("s-2")
        assert await one.user("Hello") == [UNIVERSAL, text("Hello.")]
        assert len(llm.requests) == 2
        await goes_on(one, llm, {"role": "assistant", "content": "Hello."})
        llm.steps += [step, step]
        assert unsigned(await other.user("Hello")) == [UNIVERSAL, *chunks]
        await goes_on(other, llm)


@rows(FINAL)
async def test_what_does_not_pass_is_one_error_at_once(tmp_path: Path, name: str, step: Step, chunks: Chunks) -> None:
    async with talk(tmp_path, step) as (llm, client):
        assert unsigned(await client.session().user("Hello")) == [UNIVERSAL, *chunks]
        assert len(llm.requests) == 1
        await goes_on(client.session(), llm)


@rows(BEGUN)
async def test_an_answer_that_broke_off_is_told_as_far_as_it_came_and_not_kept(
    tmp_path: Path, name: str, step: Step, chunks: Chunks
) -> None:
    async with talk(tmp_path, step, **impatient(name)) as (llm, client):
        told = {"type": "assistant_message", "token": "One", "is_final": False}
        assert unsigned(await client.session("s-1", tokens=True).user("Hello")) == [UNIVERSAL, told, *chunks]
        assert len(llm.requests) == 1
        await goes_on(client.session("s-1"), llm)
        llm.steps.append(step)
        assert unsigned(await client.session("s-2").user("Hello")) == [UNIVERSAL, *chunks]
        await goes_on(client.session("s-2"), llm)


@rows(ODD)
async def test_what_is_only_odd_is_an_answer(tmp_path: Path, name: str, step: Step, chunks: Chunks) -> None:
    async with talk(tmp_path, step) as (llm, client):
        assert await client.session().user("Hello") == [UNIVERSAL, *chunks]
        assert len(llm.requests) == 1


async def test_nobody_listens(tmp_path: Path) -> None:
    port = free_port()
    async with service(None, asking(tmp_path, f"http://127.0.0.1:{port}")) as client:
        assert unsigned(await client.session().user("Hello")) == [UNIVERSAL, *UNREACHABLE]
        async with ScriptedLLM(port=port) as llm:
            await goes_on(client.session(), llm)


async def test_nobody_accepts(tmp_path: Path) -> None:
    with ExitStack() as queue:
        port = full(queue)
        settings = asking(tmp_path, f"http://127.0.0.1:{port}", llm_connect_timeout_seconds=0.3)
        async with service(None, settings) as client:
            assert unsigned(await client.session().user("Hello")) == [UNIVERSAL, *UNREACHABLE]
            queue.close()
            async with ScriptedLLM(port=port) as llm:
                await goes_on(client.session(), llm)


def full(queue: ExitStack) -> int:
    """The port of a listener, on which everybody waits for ever until the queue is closed."""
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
        (calls_raw("echo", "not JSON"), "The arguments are not a JSON object: not JSON"),
        (calls_raw("echo", '{"text": "ha'), 'The arguments are not a JSON object: {"text": "ha'),
        (calls_raw("echo", r'"\u0000\ud800"'), "The arguments are not a JSON object: \ufffd\ufffd"),
        (calls("rm_rf", path="/"), "There is no tool 'rm_rf'. There are: "),
    ],
)
async def test_a_call_that_cannot_be_run_goes_back_to_the_model(tmp_path: Path, call: Reply, told: str) -> None:
    async with talk(tmp_path, call, says("Sorry.")) as (llm, client):
        said = await client.session().user("Hello")
        assert said[-1] == text("Sorry.")
        assert [chunk["type"] for chunk in said].count("tool_call") == 0
        _, _, asked, answer = llm.requests[-1].body["messages"]
        assert answer["content"].startswith(told)
        assert answer["tool_call_id"] == asked["tool_calls"][0]["id"]
        assert isinstance(json.loads(asked["tool_calls"][0]["function"]["arguments"]), dict)


async def test_no_two_calls_have_one_id(tmp_path: Path) -> None:
    twins = calls("read_file", path="a.py") & calls("read_file", path="b.py")
    async with talk(tmp_path, twins, calls("read_file", path="c.py"), says("Read.")) as (llm, client):
        session = client.session(parallel_tools=True)
        _, first, second = await session.user("Hello")
        assert first == tool_call("read_file", path="a.py") | {"is_final": False}
        assert second == tool_call("read_file", second["call_id"], path="b.py")
        assert await session.result("a") == []
        (third,) = await session.result("b", second["call_id"])
        assert third == tool_call("read_file", third["call_id"], path="c.py")
        assert await session.result("c", third["call_id"]) == [text("Read.")]
        asked = ["call_1", second["call_id"], third["call_id"]]
        assert len({*asked}) == 3
        heard = llm.requests[-1].body["messages"]
        assert [(m["tool_call_id"], m["content"]) for m in heard if m["role"] == "tool"] == [
            *zip(asked, "abc", strict=True)
        ]
