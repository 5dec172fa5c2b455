"""A model gets its own ids and fields back unchanged, and nobody else sees them."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from graph.llm.provider_fields import MAX_BYTES
from graph.settings import Settings
from tests.support.eventually import eventually
from tests.support.llm_server import (
    JSON_TYPE,
    LLMRequest,
    Responder,
    ScriptedLLM,
    build_delta,
    encode_sse,
    respond_raw,
    respond_status,
    respond_text,
    respond_tool_call,
)
from tests.support.rewind import undo_last_turn
from tests.support.service import GatewayClient, settings_for, start_service, text_chunk

WIRE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
SIGNATURE: dict[str, Any] = {"extra_content": {"google": {"thought_signature": "CsYB+/=="}}}


def build_call(call_id: Any = "call_1", path: str = "a.py", **fields: Any) -> dict[str, Any]:
    function = {"name": "read_file", "arguments": json.dumps({"path": path}), **fields.pop("function", {})}
    return {"id": call_id, "type": "function", "function": function, **fields}


def stream_answer(*calls: dict[str, Any], **fields: Any) -> Responder:
    """Answer with a stream: the fields of the message in one event, each call in another."""
    deltas = [build_delta(**{"role": "assistant", "content": None, **fields})]
    deltas += [build_delta(tool_calls=[{"index": index, **call}]) for index, call in enumerate(calls)]
    end = build_delta(finish_reason="tool_calls" if calls else "stop")
    return respond_raw(encode_sse(*deltas, end, done=True))


def document_answer(*calls: dict[str, Any], **fields: Any) -> Responder:
    """Answer with one JSON document."""
    message = {"role": "assistant", "content": None, "tool_calls": [*calls], **fields}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return respond_raw(json.dumps({"choices": [choice]}).encode(), content_type=JSON_TYPE)


both_forms = pytest.mark.parametrize("answer", [stream_answer, document_answer])


def build_settings(where: Path | str, llm: ScriptedLLM, **changes: Any) -> Settings:
    given = {"llm_model": "scripted", "llm_proxy_url": llm.url, "llm_retries": 0, "multi_agent_mode": False}
    return settings_for(where, **{**given, **changes})


@asynccontextmanager
async def start_scripted(
    where: Path | str, *steps: Responder, **changes: Any
) -> AsyncIterator[tuple[ScriptedLLM, GatewayClient]]:
    async with ScriptedLLM(*steps) as llm, start_service(None, build_settings(where, llm, **changes)) as client:
        yield llm, client


def find_calls(llm: ScriptedLLM) -> list[tuple[dict[str, Any], list[str]]]:
    """Return the assistant messages with calls in the last request, each with the ids of the answers behind it."""
    found: list[tuple[dict[str, Any], list[str]]] = []
    for message in llm.requests[-1].body["messages"]:
        if message.get("tool_calls"):
            found.append((message, []))
        elif message["role"] == "tool":
            found[-1][1].append(message["tool_call_id"])
    return found


@both_forms
@pytest.mark.parametrize(
    "given",
    [
        "functions.read_file:0",
        "call_abc|fc_def",
        "toolu_01 x",
        "call_x__thought__" + "Ab+/=" * 200,
        "x" * 257,
        "x" * 129,
        "x" * 128,
        "0",
        "вызов\u2028\x00\ud800",
    ],
    ids=range(9),
)
async def test_model_gets_its_own_call_id_back(tmp_path: Path, answer: Any, given: str) -> None:
    async with start_scripted(tmp_path, answer(build_call(given)), respond_text("Done.")) as (llm, client):
        session = client.open_session()
        *_, call = await session.send_text("Read a.py")
        assert WIRE_ID.fullmatch(call["call_id"])
        assert await session.send_result("x", call["call_id"]) == [text_chunk("Done.")]
        ((message, answers),) = find_calls(llm)
        assert (message["tool_calls"], answers) == ([build_call(given)], [given])
        _, asked, answered, _ = await session.fetch_history()
        assert [asked["tool_calls"][0]["id"], answered["tool_call_id"]] == [call["call_id"]] * 2


@pytest.mark.parametrize("given", ["", None])
async def test_model_without_call_ids_gets_those_of_the_wire(tmp_path: Path, given: str | None) -> None:
    async with start_scripted(tmp_path, stream_answer(build_call(given)), respond_text("Done.")) as (llm, client):
        session = client.open_session()
        *_, call = await session.send_text("Read a.py")
        await session.send_result("x", call["call_id"])
        ((message, answers),) = find_calls(llm)
        assert [message["tool_calls"][0]["id"], *answers] == [call["call_id"]] * 2


async def test_call_id_that_comes_twice_is_the_providers_once(tmp_path: Path) -> None:
    """Services refuse a conversation with two calls of one id, in one message or in several."""
    given = "functions.read_file:0"
    twins = stream_answer(build_call(given, "a.py"), build_call(given, "b.py"))
    steps = twins, stream_answer(build_call(given, "c.py")), respond_text("Done.")
    async with start_scripted(tmp_path, *steps) as (llm, client):
        session = client.open_session(parallel_tools=True)
        *_, first, second = await session.send_text("Read them")
        await session.send_result("a", first["call_id"])
        (third,) = await session.send_result("b", second["call_id"])
        await session.send_result("c", third["call_id"])
        expected = [[given, second["call_id"]], [third["call_id"]]]
        assert [[call["id"] for call in message["tool_calls"]] for message, _ in find_calls(llm)] == expected
        assert [answers for _, answers in find_calls(llm)] == expected


@both_forms
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (SIGNATURE, {}),
        ({"provider_specific_fields": {"thought_signature": "SIG", "n": [1, 2.5, True, {}]}}, {}),
        ({"function": {"thought_signature": "SIG"}}, {}),
        ({"x-next": "новое\u2028\x00\ud800"}, {"x-next": {"a": None}}),
        ({}, {"reasoning_content": "I should read it.\x00"}),
        ({}, {"reasoning_content": ""}),
        ({}, {"reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x+/=", "index": 0}]}),
        ({}, {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "SIG"}]}),
        ({"id": "functions.read_file:0", **SIGNATURE}, {"provider_specific_fields": {"opaque": "x"}}),
    ],
    ids=range(9),
)
async def test_model_gets_its_unknown_fields_back(
    tmp_path: Path, answer: Any, call: dict[str, Any], message: dict[str, Any]
) -> None:
    given = build_call(call.get("id", "call_1"), **{name: value for name, value in call.items() if name != "id"})
    async with start_scripted(tmp_path, answer(given, **message), respond_text("Done.")) as (llm, client):
        session = client.open_session()
        *_, asked = await session.send_text("Read a.py")
        assert asked["arguments"] == {"path": "a.py"}
        await session.send_result("x", asked["call_id"])
        ((sent, answers),) = find_calls(llm)
        assert sent == {"role": "assistant", "content": "", "tool_calls": [given], **message}
        assert answers == [given["id"]]


@both_forms
async def test_fields_that_services_do_not_take_back_are_dropped(tmp_path: Path, answer: Any) -> None:
    more: dict[str, Any] = {
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "reasoning_content": None,
    }
    async with start_scripted(tmp_path, answer(build_call(), **more), respond_text("Done.")) as (llm, client):
        session = client.open_session()
        await session.send_text("Read a.py")
        await session.send_result()
        ((sent, _),) = find_calls(llm)
        assert sent == {"role": "assistant", "content": "", "tool_calls": [build_call()]}


@pytest.mark.parametrize(
    ("deltas", "whole"),
    [
        ([{"reasoning_content": "I "}, {"reasoning_content": "see"}], {"reasoning_content": "I see"}),
        ([{"reasoning": "\ud83d"}, {"reasoning": "\ude00"}], {"reasoning": "😀"}),
        (
            [
                {"reasoning_details": [{"type": "reasoning.text", "text": "I ", "format": "a", "index": 0}]},
                {"reasoning_details": [{"type": "reasoning.text", "text": "see", "format": "a", "index": 0}]},
                {"reasoning_details": [{"type": "reasoning.text", "signature": "SIG", "format": "a", "index": 0}]},
                {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x", "id": "rs_1", "index": 0}]},
                {"reasoning_details": [{"type": "reasoning.text", "text": "Then", "index": 1}]},
            ],
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "I see", "format": "a", "index": 0, "signature": "SIG"},
                    {"type": "reasoning.encrypted", "data": "x", "id": "rs_1", "index": 0},
                    {"type": "reasoning.text", "text": "Then", "index": 1},
                ]
            },
        ),
        (
            [
                {"thinking_blocks": [{"type": "thinking", "thinking": "I ", "signature": ""}]},
                {"thinking_blocks": [{"type": "thinking", "thinking": "see", "signature": ""}]},
                {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "SIG"}]},
                {"thinking_blocks": [{"type": "redacted_thinking", "data": "x"}]},
                {"thinking_blocks": [{"type": "redacted_thinking", "data": "y"}]},
                {"thinking_blocks": [{"type": "thinking", "thinking": "Then", "signature": "SIG2"}]},
            ],
            {
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "I see", "signature": "SIG"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "redacted_thinking", "data": "y"},
                    {"type": "thinking", "thinking": "Then", "signature": "SIG2"},
                ]
            },
        ),
        (
            [{"provider_specific_fields": {"a": "x", "signature": "SIG"}}] * 2,
            {"provider_specific_fields": {"a": "xx", "signature": "SIG"}},
        ),
        ([{"citations": ["a"]}, {"citations": ["b", "c"]}], {"citations": ["a", "b", "c"]}),
        ([{"score": 1, "x": "a"}, {"score": 2, "x": [1]}, {"score": None}], {"score": 2, "x": [1]}),
    ],
    ids=["text", "surrogates", "indexed", "thinking", "object", "list", "other"],
)
async def test_pieces_of_a_streamed_field_are_joined(
    tmp_path: Path, deltas: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    events = [*(build_delta(**delta) for delta in deltas), build_delta(tool_calls=[{"index": 0, **build_call()}])]
    answer = respond_raw(encode_sse(*events, build_delta(finish_reason="tool_calls"), done=True))
    async with start_scripted(tmp_path, answer, respond_text("Done.")) as (llm, client):
        session = client.open_session()
        await session.send_text("Read a.py")
        await session.send_result()
        ((sent, _),) = find_calls(llm)
        assert sent == {"role": "assistant", "content": "", "tool_calls": [build_call()], **whole}


async def test_pieces_of_a_streamed_call_are_joined(tmp_path: Path) -> None:
    """Some services send the signature before the arguments, some after them, some with each piece."""
    first, second = '{"path": ', '"a.py"}'
    deltas = [
        {"index": 0, "id": "call 1", "function": {"name": "read_file", "arguments": first, "note": "n"}, **SIGNATURE},
        {"index": 0, "id": "call 1", "function": {"arguments": second, "note": "o"}, **SIGNATURE},
        {"index": 0, "late": [1]},
    ]
    events = [build_delta(tool_calls=[delta]) for delta in deltas]
    answer = respond_raw(encode_sse(*events, build_delta(finish_reason="tool_calls"), done=True))
    async with start_scripted(tmp_path, answer, respond_text("Done.")) as (llm, client):
        session = client.open_session()
        *_, call = await session.send_text("Read a.py")
        await session.send_result("x", call["call_id"])
        ((sent, answers),) = find_calls(llm)
        assert sent["tool_calls"] == [build_call("call 1", **SIGNATURE, late=[1], function={"note": "no"})]
        assert answers == ["call 1"]


FULL_CALL = build_call("functions.read_file:0", function={"signature": "F"}, **SIGNATURE)
FULL_FIELDS: dict[str, Any] = {"reasoning_content": "Мысль\x00\ud800", "thinking_blocks": [{"signature": "SIG"}]}
"""All that can be lost on the way through a database."""


async def test_fields_survive_restart_undo_and_fork(database: str) -> None:
    async with ScriptedLLM(stream_answer(FULL_CALL, **FULL_FIELDS), respond_text("One."), respond_text("Two.")) as llm:
        settings = build_settings(database, llm)
        async with start_service(None, settings) as client:
            session = client.open_session()
            *_, call = await session.send_text("Read a.py")
        async with start_service(None, settings) as client:
            session = client.open_session()
            assert await session.send_result("x", call["call_id"]) == [text_chunk("One.")]
            first = find_calls(llm)
            await session.send_text("And then?")
            await undo_last_turn(session)
            forked = (await client.http.post("/sessions/s-1/fork", json={})).json()["session_id"]
        assert first == [
            ({"role": "assistant", "content": "", "tool_calls": [FULL_CALL], **FULL_FIELDS}, [FULL_CALL["id"]])
        ]
        async with start_service(None, settings) as client:
            for session in (client.open_session(), client.open_session(forked)):
                llm.steps.append(respond_text("Three."))
                assert await session.send_text("Go on") == [text_chunk("Three.")]
                assert find_calls(llm) == first


async def test_edited_call_keeps_its_fields(tmp_path: Path) -> None:
    arguments = json.dumps({"path": "a.py", "content": "x"})
    given = build_call("call:1", function={"name": "write_file", "arguments": arguments}, **SIGNATURE)
    async with start_scripted(tmp_path, stream_answer(given), respond_text("Done.")) as (llm, client):
        session = client.open_session()
        *_, asked = await session.send_text("Write a.py")
        (call,) = await session.decide("edit", asked["call_id"], modified_arguments={"content": "y"})
        await session.send_result("ok", call["call_id"])
        ((sent, answers),) = find_calls(llm)
        changed = json.dumps({"path": "a.py", "content": "y"})
        assert sent["tool_calls"] == [
            build_call("call:1", function={"name": "write_file", "arguments": changed}, **SIGNATURE)
        ]
        assert answers == ["call:1"]


async def test_other_model_gets_no_fields_and_ids_that_any_service_takes(tmp_path: Path) -> None:
    """A model that answers in the place of another one knows nothing of the other's signatures. Nor the other way.

    Mistral takes ids of nine letters and digits only.
    """
    steps = (
        stream_answer(FULL_CALL, **FULL_FIELDS),
        respond_status(500),
        respond_tool_call("read_file", "b", path="b.py"),
    )
    async with start_scripted(tmp_path, *steps, llm_fallback_model="other", llm_breaker_failures=99) as (llm, client):
        session = client.open_session()
        *_, call = await session.send_text("Read a.py")
        (second,) = await session.send_result("x", call["call_id"])
        assert [request.body["model"] for request in llm.requests] == ["scripted", "scripted", "other"]
        ((sent, (call_id,)),) = find_calls(llm)
        assert sent == {"role": "assistant", "content": "", "tool_calls": [build_call(call_id)]}
        assert re.fullmatch(r"[A-Za-z0-9]{9}", call_id)
        llm.steps.append(respond_text("Done."))
        assert await session.send_result("y", second["call_id"]) == [text_chunk("Done.")]
        (first, answers), _ = find_calls(llm)
        assert first == {"role": "assistant", "content": "", "tool_calls": [FULL_CALL], **FULL_FIELDS}
        assert answers == [FULL_CALL["id"]]


async def test_fields_follow_the_conversation_to_another_agent(tmp_path: Path) -> None:
    steps = stream_answer(FULL_CALL, **FULL_FIELDS), respond_text("Done."), respond_text("It prints.")
    async with start_scripted(tmp_path, *steps, multi_agent_mode=True) as (llm, client):
        session = client.open_session()
        *_, call = await session.switch("coder", content="Read a.py")
        await session.send_result("x", call["call_id"])
        before = find_calls(llm)
        await session.switch("ask", content="What does it do?")
        assert find_calls(llm) == before
        assert before[0][0] == {"role": "assistant", "content": "", "tool_calls": [FULL_CALL], **FULL_FIELDS}


SECRET_CALL = build_call("SECRET id", function={"signature": "SECRET"}, extra_content={"signature": "SECRET"})
SECRET_FIELDS: dict[str, Any] = {"reasoning_content": "SECRET", "thinking_blocks": [{"thinking": "SECRET"}]}


async def test_nobody_else_sees_the_fields(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No client, no title, no log and no other part of the service shows them."""
    caplog.set_level("DEBUG")
    write = {"name": "write_file", "arguments": json.dumps({"path": "a.py", "content": "x"}), "note": "SECRET"}
    steps = iter([([SECRET_CALL | {"function": write}], "I write."), ([], "Done.")])

    def answer(request: LLMRequest) -> Responder:
        if "tools" in request.body:
            calls, text = next(steps)
            return stream_answer(*calls, content=text, **SECRET_FIELDS)
        choice = '{"agent": "coder", "confidence": "high", "reasoning": "It fits."}'
        return document_answer(content=choice if "temperature" in request.body else "A title", **SECRET_FIELDS)

    async with start_scripted(tmp_path, multi_agent_mode=True, llm_titles=True, log_level="DEBUG") as (llm, client):
        llm.otherwise = answer
        session = client.open_session(tokens=True, usage=True)
        chunks = await session.send_text("Write a.py")
        call_id = chunks[-1]["call_id"]
        chunks += await session.decide("approve", call_id)
        chunks += await session.send_result("written", call_id)
        assert [chunk["content"] for chunk in chunks if chunk.get("content")][1:] == ["I write.", "Done."]

        async def has_title() -> bool:
            return bool((await session.get("/sessions/{id}"))["title"] == "A title")

        await eventually(has_title, "the title")
        paths = ["", "/history", "/export", "/view", "/calls", "/audit", "/usage", "/grants"]
        shown = [chunks, *[await session.get(f"/sessions/{{id}}{path}") for path in paths]]
        assert "SECRET" not in json.dumps(shown)
        *_, last = [request.body for request in llm.requests if "tools" in request.body]
        assert json.dumps(last).count("SECRET") == 6
        assert "SECRET" not in json.dumps([request.body for request in llm.requests if "tools" not in request.body])
    assert "SECRET" not in "\n".join(record.getMessage() for record in caplog.records if record.name != "httpcore")


async def test_fields_are_dropped_with_their_messages(tmp_path: Path) -> None:
    """A summary stands for messages that do not fit any more. No field gets into it, and none outlives its message."""

    def answer(request: LLMRequest) -> Responder:
        if "tools" not in request.body:
            return respond_text("They read files.")
        number = len(request.body["messages"])
        return stream_answer(content=f"Read {number}.", **SECRET_FIELDS) if number > 2 else respond_text("Well.")

    async with start_scripted(tmp_path, stream_answer(SECRET_CALL, **SECRET_FIELDS), context_tokens=6000) as (
        llm,
        client,
    ):
        llm.otherwise = answer
        session = client.open_session()
        *_, call = await session.send_text("Read a.py")
        await session.send_result("x", call["call_id"])
        assert json.dumps(llm.requests[-1].body).count("SECRET") == 6
        while all("tools" in request.body for request in llm.requests):
            await session.send_text("word " * 400)
        await session.send_text("word " * 400)
        (summarized,) = [request.body for request in llm.requests if "tools" not in request.body]
        assert "SECRET" not in json.dumps(summarized)
        assert "They read files." in json.dumps(llm.requests[-1].body)
        assert find_calls(llm) == []


async def test_fields_beyond_the_limit_are_dropped_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = "x" * MAX_BYTES
    call = build_call(long, **SIGNATURE, long=long)
    answer = document_answer(call, reasoning_content=long, reasoning="short", deep=json.loads("[" * 99 + "]" * 99))
    async with start_scripted(tmp_path, answer, respond_text("Done."), log_level="WARNING") as (llm, client):
        session = client.open_session()
        *_, call = await session.send_text("Read a.py")
        assert await session.send_result("x", call["call_id"]) == [text_chunk("Done.")]
        ((sent, answers),) = find_calls(llm)
        assert sent == {
            "role": "assistant",
            "content": "",
            "tool_calls": [build_call(call["call_id"], **SIGNATURE)],
            "reasoning": "short",
        }
        assert answers == [call["call_id"]]
        losses = [record.getMessage() for record in caplog.records if "is not kept" in record.getMessage()]
        assert [line.partition(" of ")[0] for line in losses] == [
            "the field 'id'",
            "the field 'long'",
            "the field 'deep'",
            "the field 'reasoning_content'",
        ]


async def test_fields_leave_room_for_the_conversation(tmp_path: Path) -> None:
    """The fields of a message count as a part of the prompt, and are left out whole where they do not fit."""
    fields = {"reasoning_content": "мысль " * 4_000}
    async with start_scripted(
        tmp_path, stream_answer(FULL_CALL, **fields), respond_text("Done."), context_tokens=6_000
    ) as (llm, client):
        session = client.open_session()
        *_, call = await session.send_text("Read a.py")
        assert await session.send_result("x", call["call_id"]) == [text_chunk("Done.")]
        assert find_calls(llm) == [({"role": "assistant", "content": "", "tool_calls": [FULL_CALL]}, [FULL_CALL["id"]])]


async def test_parallel_calls_have_their_own_fields(tmp_path: Path) -> None:
    """The answers may come in any order, also to calls with arguments that nobody can read."""
    broken = build_call("b:1", function={"arguments": "{", "note": "broken"}, extra="broken")
    calls = [build_call("a:1", extra="a"), broken, build_call("c:1", "c.py", extra="c")]
    async with start_scripted(tmp_path, stream_answer(*calls), respond_text("Done.")) as (llm, client):
        session = client.open_session(parallel_tools=True)
        *_, first, second = await session.send_text("Read them")
        await session.send_result("c", second["call_id"])
        await session.send_result("a", first["call_id"])
        ((sent, _),) = find_calls(llm)
        broken["function"]["arguments"] = "{}"
        assert sorted(sent["tool_calls"], key=lambda call: str(call["id"])) == calls
        results = {m["tool_call_id"]: m["content"] for m in llm.requests[-1].body["messages"] if m["role"] == "tool"}
        assert (results["a:1"], results["c:1"], results["b:1"][:13]) == ("a", "c", "The arguments")


@pytest.mark.parametrize("last", ["message", "choice"])
async def test_fields_of_other_parts_of_the_answer_are_found(tmp_path: Path, last: str) -> None:
    """Some services sum a stream up in a closing message, some put the calls into a second choice."""
    message = {"role": "assistant", "content": "I see.", "tool_calls": [build_call(**SIGNATURE)], "late": "x"}
    if last == "message":
        deltas = [build_delta(content="I see.", reasoning="Hm."), build_delta(tool_calls=[build_call()])]
        end = {"choices": [{"index": 0, "message": {**message, "reasoning": "Other."}, "finish_reason": "tool_calls"}]}
    else:
        deltas = [build_delta(content="I see.", reasoning="Hm.", finish_reason="tool_calls")]
        end = {"choices": [{"index": 1, "delta": {**message, "content": None}, "finish_reason": "tool_calls"}]}
    async with start_scripted(tmp_path, respond_raw(encode_sse(*deltas, end, done=True)), respond_text("Done.")) as (
        llm,
        client,
    ):
        session = client.open_session()
        *_, call = await session.send_text("Read a.py")
        await session.send_result("x", call["call_id"])
        ((sent, _),) = find_calls(llm)
        assert sent == {**message, "reasoning": "Hm."}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (
            400,
            {
                "message": "Unknown parameter: 'messages[2].reasoning_content'.",
                "param": "messages[2].reasoning_content",
            },
        ),
        (400, {"message": "'messages.2' : [('messages.2' : property 'reasoning_content' is unsupported)]"}),
        (400, {"message": "Invalid JSON. Unknown name \"reasoning_content\" at 'messages[2]': Cannot find field."}),
        (422, [{"type": "extra_forbidden", "loc": ["body", "messages", 2, "assistant", "reasoning_content"]}]),
    ],
    ids=["path", "property", "name", "location"],
)
async def test_field_that_a_service_does_not_take_back_is_left_out(tmp_path: Path, status: int, error: Any) -> None:
    """Some services send thoughts and refuse them. Their requests go without that field from then on."""
    refusal = respond_status(status, json.dumps({"detail" if status == 422 else "error": error}).encode())
    answers: list[Responder] = [stream_answer(FULL_CALL, **FULL_FIELDS), respond_text("One."), respond_text("Two.")]

    def answer(request: LLMRequest) -> Responder:
        return refusal if "reasoning_content" in json.dumps(request.body["messages"]) else answers.pop(0)

    async with start_scripted(tmp_path, log_level="CRITICAL") as (llm, client):
        llm.otherwise = answer
        session = client.open_session()
        *_, call = await session.send_text("Read a.py")
        assert await session.send_result("x", call["call_id"]) == [text_chunk("One.")]
        assert await session.send_text("And?") == [text_chunk("Two.")]
        assert len(llm.requests) == 4
        ((sent, _),) = find_calls(llm)
        left = {name: value for name, value in FULL_FIELDS.items() if name != "reasoning_content"}
        assert sent == {"role": "assistant", "content": "", "tool_calls": [FULL_CALL], **left}


async def test_conversation_continues_when_a_service_has_forgotten_what_it_signed(tmp_path: Path) -> None:
    """A signature is worth nothing after a change of keys or of region. Other conversations keep theirs."""
    refusal = respond_status(
        400, b'{"error": {"message": "messages.1.content.0: Invalid `signature` in `thinking` block"}}'
    )
    steps = (
        stream_answer(FULL_CALL, **FULL_FIELDS),
        *(refusal, respond_text("One.")),
        *(stream_answer(FULL_CALL, **FULL_FIELDS), respond_text("Two.")),
    )
    async with start_scripted(tmp_path, *steps, log_level="CRITICAL") as (llm, client):
        for name, text in (("s-1", "One."), ("s-2", "Two.")):
            session = client.open_session(name)
            *_, call = await session.send_text("Read a.py")
            assert await session.send_result("x", call["call_id"]) == [text_chunk(text)]
        without, *_, with_all = [request.body["messages"] for request in llm.requests[2:]]
        assert [*without[2]] == ["role", "content", "tool_calls"]
        assert without[2]["tool_calls"] == [build_call(FULL_CALL["id"])]
        assert [*with_all[2]] == ["role", "content", "tool_calls", *FULL_FIELDS]


async def test_service_that_misses_a_field_still_gets_it(tmp_path: Path) -> None:
    """A service that names a field may also want it. It is left out of the second try only."""
    message = "The `reasoning_content` in the thinking mode must be passed back to the API."
    refusal = respond_status(400, json.dumps({"error": {"message": message}}).encode())
    steps = stream_answer(FULL_CALL, **FULL_FIELDS), refusal, refusal, respond_text("Done.")
    async with start_scripted(tmp_path, *steps, log_level="CRITICAL") as (llm, client):
        session = client.open_session()
        *_, call = await session.send_text("Read a.py")
        (error,) = await session.send_result("x", call["call_id"])
        assert error["type"] == "error"
        assert await session.send_text("Again") == [text_chunk("Done.")]
        ((sent, _),) = find_calls(llm)
        assert sent == {"role": "assistant", "content": "", "tool_calls": [FULL_CALL], **FULL_FIELDS}


@pytest.mark.parametrize("later", [{}, {"reasoning_content": "And."}], ids=["none", "others"])
async def test_completed_text_keeps_the_newest_fields(tmp_path: Path, later: dict[str, Any]) -> None:
    """A text that was cut off, and the rest of it, go back as one message."""
    cut = respond_raw(encode_sse(build_delta("length", content="It prints ", reasoning_content="Hm."), done=True))
    steps = cut, stream_answer(content="a line.", **later), respond_text("Done.")
    async with start_scripted(tmp_path, *steps) as (llm, client):
        session = client.open_session()
        await session.send_text("What does a.py do?")
        await session.send_text("And b.py?")
        sent = llm.requests[-1].body["messages"][2]
        assert sent == {"role": "assistant", "content": "It prints a line.", "reasoning_content": "Hm.", **later}
