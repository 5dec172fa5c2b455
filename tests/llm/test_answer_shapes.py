"""The shapes that real services give to one and the same answer are read alike."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from tests.llm.test_llm import encode_text_event, open_scripted_model, stream_answer
from tests.support.llm_server import JSON_TYPE, build_delta, encode_sse, hang_after, respond_raw, respond_text

READ_A = {"id": "call_1", "type": "function", "function": {"name": "read_file", "arguments": '{"path": "a.py"}'}}
READ_B = {"id": "call_2", "type": "function", "function": {"name": "read_file", "arguments": '{"path": "b.py"}'}}
STOP, TOOL_CALLS = build_delta(finish_reason="stop"), build_delta(finish_reason="tool_calls")


def build_closing(reason: str = "stop", delta: Any = "absent", index: int = 0, **message: Any) -> dict[str, Any]:
    """Return an event with a whole message; `delta` stands beside it unless it is absent."""
    beside = {} if delta == "absent" else {"delta": delta}
    return {"choices": [{"index": index, **beside, "message": message, "finish_reason": reason}]}


def call_delta(*parts: dict[str, Any]) -> dict[str, Any]:
    return build_delta(tool_calls=list(parts))


def name_part(name: str | None, arguments: str | None = None, **fields: Any) -> dict[str, Any]:
    return {**fields, "function": {"name": name, "arguments": arguments}}


async def read_body(body: bytes, slices: int | None = None) -> AIMessage:
    async with open_scripted_model(respond_raw(body, slices=slices), llm_retries=0) as (_, model):
        return await stream_answer(model)


def list_paths(message: BaseMessage) -> list[tuple[str, Any]]:
    assert isinstance(message, AIMessage)
    assert message.invalid_tool_calls == []
    return [(call["name"], call["args"].get("path")) for call in message.tool_calls]


@pytest.mark.parametrize("delta", ["absent", None, {}, {"role": "assistant"}, {"content": ""}])
async def test_closing_message_after_deltas_adds_no_text(delta: Any) -> None:
    closing = build_closing(delta=delta, role="assistant", content="Hello")
    body = encode_sse(build_delta(content="Hel"), build_delta(content="lo"), closing, done=True)
    assert (await read_body(body)).content == "Hello"


GROWING = [build_closing(reason, content=text) for text, reason in (("Hel", ""), ("Hello", ""), ("Hello", "stop"))]


@pytest.mark.parametrize("events", [[build_closing(content="Hello")], [build_closing(content="Hello")] * 2, GROWING])
async def test_message_without_deltas_is_the_answer_once(events: Sequence[Any]) -> None:
    assert (await read_body(encode_sse(*events, done=True))).content == "Hello"


async def test_text_that_no_delta_brought_is_taken_from_the_closing_message() -> None:
    body = encode_sse(build_delta(role="assistant", reasoning="Hm"), build_closing(content="Hello"), done=True)
    assert (await read_body(body)).content == "Hello"


@pytest.mark.parametrize(
    ("closing", "paths"),
    [
        ([READ_A], ["a.py"]),
        ([{**READ_A, "id": "another"}], ["a.py"]),
        ([{"function": READ_A["function"]}], ["a.py"]),
        ([READ_A, READ_B], ["a.py", "b.py"]),
        (None, ["a.py"]),
    ],
)
@pytest.mark.parametrize("delta", ["absent", None, {}])
async def test_closing_message_adds_only_the_calls_that_no_delta_brought(
    delta: Any, closing: Any, paths: list[str]
) -> None:
    body = encode_sse(
        call_delta({"index": 0, **READ_A}), build_closing("tool_calls", delta=delta, tool_calls=closing), done=True
    )
    assert list_paths(await read_body(body)) == [("read_file", path) for path in paths]


async def test_calls_of_the_closing_message_follow_text_of_deltas() -> None:
    body = encode_sse(
        build_delta(content="I look."), build_closing("tool_calls", content="I look.", tool_calls=[READ_A]), done=True
    )
    message = await read_body(body)
    assert (message.content, list_paths(message)) == ("I look.", [("read_file", "a.py")])


async def test_closing_message_brings_the_arguments_that_its_delta_lacked() -> None:
    begun = {"index": 0, "id": "call_1", "function": {"name": "read_file", "arguments": ""}}
    body = encode_sse(call_delta(begun), build_closing("tool_calls", tool_calls=[READ_A]), done=True)
    assert list_paths(await read_body(body)) == [("read_file", "a.py")]


TEXT_CHOICE = {"finish_reason": "tool_calls", "message": {"role": "assistant", "content": "I look."}}
CALL_CHOICE = {"finish_reason": "tool_calls", "message": {"role": "assistant", "tool_calls": [READ_A]}}
HALVES = [name_part("read_file", '{"path"', index=0, id="call_1"), name_part(None, ': "a.py"}', index=0)]


@pytest.mark.parametrize("index", [0, 1])
async def test_calls_in_the_second_choice_of_a_document_are_taken(index: int) -> None:
    document = {"choices": [{"index": 0, **TEXT_CHOICE}, {"index": index, **CALL_CHOICE}]}
    message = await read_body(json.dumps(document).encode())
    assert (message.content, list_paths(message)) == ("I look.", [("read_file", "a.py")])


@pytest.mark.parametrize(
    "events",
    [
        [
            {"choices": [{"index": 1, "delta": {"tool_calls": [part]}, "finish_reason": None}]}  # a choice of its own
            for part in HALVES
        ],
        [
            {"choices": [{"index": 0, "delta": {}}, {"index": 0, "delta": {"tool_calls": [part]}}]}  # beside the first
            for part in HALVES
        ],
        [{"choices": [{"index": 0, "delta": {"tool_calls": [part]}}]} for part in HALVES],
    ],
)
async def test_calls_in_the_second_choice_of_a_stream_are_taken(events: list[Any]) -> None:
    message = await read_body(encode_sse(build_delta(content="I look."), *events, TOOL_CALLS, done=True))
    assert (message.content, list_paths(message)) == ("I look.", [("read_file", "a.py")])


@pytest.mark.parametrize(
    ("first", "paths"),
    [
        ({"finish_reason": "stop", "message": {"content": "Hello."}}, []),
        ({"finish_reason": "tool_calls", "message": {"tool_calls": [READ_B]}}, ["b.py"]),
    ],
)
async def test_second_choice_is_passed_over_when_the_first_is_whole(first: Any, paths: list[str]) -> None:
    message = await read_body(json.dumps({"choices": [first, {"index": 1, **CALL_CHOICE}]}).encode())
    assert list_paths(message) == [("read_file", path) for path in paths]


HELLO = (encode_text_event("Hel"), encode_text_event("lo"), encode_sse(STOP, done=True))


@pytest.mark.parametrize(
    "line",
    [
        b"data: : keep-alive\n\n",
        b"data: ping\n\n",
        b"data: null\n\n",
        b"data:\n\n",
        b'data: "waiting"\n\n',
        b'event: ping\ndata: {"type": "ping"}\n\n',
    ],
)
async def test_data_that_is_no_object_is_passed_over(line: bytes) -> None:
    assert (await read_body(HELLO[0] + line + HELLO[1] + HELLO[2])).content == "Hello"


@pytest.mark.parametrize("slices", [None, 1, 7])
@pytest.mark.parametrize("end", [b"\r", b"\r\n", b"\n"])
async def test_lines_end_at_each_line_end_of_the_standard(end: bytes, slices: int | None) -> None:
    continued = b'data: {"choices":\ndata: [{"delta":{"content":"!"}}]}\n\n'
    body = (HELLO[0] + HELLO[1] + continued + HELLO[2]).replace(b"\n", end)
    assert (await read_body(body, slices)).content == "Hello!"


async def test_lines_that_end_with_a_carriage_return_are_read_as_they_come() -> None:
    body = b"".join(HELLO).replace(b"\n", b"\r")
    async with open_scripted_model(hang_after(body), llm_retries=0) as (_, model):
        assert (await stream_answer(model)).content == "Hello"


@pytest.mark.parametrize("end", [b"", b"\n", b"[DONE]\n", b"data: [DONE]\n\n"])
@pytest.mark.parametrize("slices", [None, 5])
async def test_objects_without_data_are_read_one_by_one(end: bytes, slices: int | None) -> None:
    events = [build_delta(content="Hel"), build_delta(content="lo"), call_delta({"index": 0, **READ_A}), TOOL_CALLS]
    body = "\n".join(map(json.dumps, events)).encode() + end
    message = await read_body(body, slices)
    assert (message.content, list_paths(message)) == ("Hello", [("read_file", "a.py")])


async def test_objects_that_end_with_done_need_no_finish_reason() -> None:
    body = json.dumps(build_delta(content="Hello")).encode() + b"\ndata: [DONE]\n"
    assert (await read_body(body)).content == "Hello"


async def test_objects_that_break_off_are_an_incomplete_answer() -> None:
    broken = json.dumps(build_delta(content="Hel")).encode() + b'\n{"choices": [{"del'
    async with open_scripted_model(respond_raw(broken), respond_text("Hello.")) as (llm, model):
        assert (await stream_answer(model)).content == "Hello."
    assert len(llm.requests) == 2


async def test_documents_in_a_row_are_one_answer() -> None:
    documents = [{"choices": [{"message": {"content": text}}]} for text in ("Hel", "lo")]
    assert (await read_body("\n".join(map(json.dumps, documents)).encode())).content == "Hello"


@pytest.mark.parametrize("field", ["message", "delta"])
async def test_function_call_of_2023_is_read(field: str) -> None:
    whole = {"content": None, "function_call": READ_A["function"]}
    parts = [{"name": "read_file", "arguments": ""}, {"arguments": '{"path":'}, {"arguments": ' "a.py"}'}]
    if field == "message":
        body = json.dumps({"choices": [{"message": whole, "finish_reason": "function_call"}]}).encode()
    else:
        deltas = [build_delta(function_call=part) for part in parts]
        body = encode_sse(*deltas, build_delta(finish_reason="function_call"), done=True)
    assert list_paths(await read_body(body)) == [("read_file", "a.py")]


async def test_call_of_2023_is_sent_back_in_the_format_of_today() -> None:
    body = json.dumps({"choices": [{"message": {"function_call": READ_A["function"]}}]}).encode()
    async with open_scripted_model(respond_raw(body, content_type=JSON_TYPE), respond_text("Done.")) as (llm, model):
        message = await model.ainvoke("Hi")
        await model.ainvoke([message])
    sent = llm.requests[1].body["messages"][0]
    assert [call["function"]["name"] for call in sent["tool_calls"]] == ["read_file"]
    assert "function_call" not in sent


async def test_text_of_the_older_completions_is_read() -> None:
    pieces = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("Hel", "lo")]
    closing = {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}
    assert (await read_body(encode_sse(*pieces, closing, done=True))).content == "Hello"
    assert (await read_body(json.dumps({"choices": [{"text": "Hello"}]}).encode())).content == "Hello"


@pytest.mark.parametrize(
    "parts",
    [
        [name_part("read_file", "", index=0, id="1"), name_part(None, '{"path":', index=0), name_part("", '"a"}')],
        [name_part("read_file", '{"path":', index=0, id="1"), name_part("read_file", '"a"}', index=0, id="1")],
        [name_part("read_file", '{"path":', id="1"), name_part("read_file", '"a"}', id="1")],
        [name_part("read_file", '{"path":'), name_part("read_file", '"a"}')],
        [name_part("read_file"), name_part("read_file", '{"path":'), name_part("read_file", '"a"}')],
        [name_part("read_", index=0, id="1"), name_part("file", index=0), name_part(None, '{"path":"a"}', index=0)],
        [name_part("read_", id="1"), name_part("file", id="1"), name_part(None, '{"path":"a"}', id="1")],
        [name_part("read_", index=0), name_part("read_file", '{"path":"a"}', index=0)],
        [name_part(None, "", index=0, id="1"), name_part("read_file", '{"path":"a"}', index=0)],
    ],
)
async def test_name_of_a_call_comes_once_repeated_late_or_in_pieces(parts: list[dict[str, Any]]) -> None:
    body = encode_sse(*map(call_delta, parts), TOOL_CALLS, done=True)
    assert list_paths(await read_body(body)) == [("read_file", "a")]


async def test_whole_calls_without_number_and_id_are_kept_apart() -> None:
    parts = [name_part("read_file", '{"path":"a"}'), name_part("read_file", '{"path":"b"}'), name_part("list_files")]
    message = await read_body(encode_sse(*map(call_delta, parts), TOOL_CALLS, done=True))
    assert list_paths(message) == [("read_file", "a"), ("read_file", "b"), ("list_files", None)]


@pytest.mark.parametrize(
    "text", ["\u200b", "\ufeff \n", "\u2800", "<think>Hm</think>", "<think>Hm</think>\n\u00a0", "<think>Hm", "</think>"]
)
@pytest.mark.parametrize("is_streaming", [True, False])
async def test_answer_that_nobody_can_see_is_requested_again(text: str, is_streaming: bool) -> None:
    steps = [respond_text(text), respond_text("Hello.")]
    async with open_scripted_model(*steps, llm_streaming=is_streaming) as (llm, model):
        assert (await stream_answer(model)).content == "Hello."
    assert len(llm.requests) == 2


async def test_blocks_of_thoughts_are_no_text() -> None:
    blocks = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
        {"type": "reasoning", "text": "Hm"},
        {"text": "Hm", "thought": True},
        {"type": "text", "text": "Hello"},
    ]
    assert (await read_body(encode_sse(build_delta(content=blocks), STOP, done=True))).content == "Hello"


NUMBERED = {"index": 0, "id": "call_1"}


@pytest.mark.parametrize(
    "parts",
    [
        [{**NUMBERED, "name": "read_file", "arguments": '{"path": "a.py"}'}],
        [{**NUMBERED, "name": "read_file", "arguments": '{"path"'}, {"index": 0, "arguments": ': "a.py"}'}],
    ],
    ids=["whole", "in pieces"],
)
async def test_call_without_a_function_around_it_is_read(parts: list[dict[str, Any]]) -> None:
    answer = await read_body(encode_sse(*map(call_delta, parts), TOOL_CALLS, done=True))
    assert list_paths(answer) == [("read_file", "a.py")]


async def test_list_with_one_item_may_stand_without_its_list() -> None:
    """Some gateways unwrap a list of one block or of one call."""
    delta = build_delta(content={"type": "text", "text": "I look."}, tool_calls={**NUMBERED, **READ_A})
    answer = await read_body(encode_sse(delta, TOOL_CALLS, done=True))
    assert (answer.content, list_paths(answer)) == ("I look.", [("read_file", "a.py")])
