"""A client gets one call at a time, however the model service treats the flag; one that opted in gets several."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.llm_server import (
    Responder,
    ScriptedLLM,
    ScriptedReply,
    build_delta,
    encode_sse,
    respond_raw,
    respond_text,
    respond_tool_call,
)
from tests.support.service import (
    GatewayClient,
    agent_switch_chunk,
    settings_for,
    start_service,
    text_chunk,
    tool_call_chunk,
    write_approval_chunk,
)

READ_A, READ_B = respond_tool_call("read_file", path="a.py"), respond_tool_call("read_file", id="call_2", path="b.py")
BOTH_READS = READ_A & READ_B
COMPLETION_CALL = respond_tool_call("attempt_completion", id="call_3", result="Done.")
COMPLETION_CHUNK = text_chunk("Done.", metadata={"completion": True})
UNIVERSAL_SWITCH = agent_switch_chunk(
    "orchestrator", "universal", "There is no other agent.", confidence="high", classification_method="keywords"
)


@asynccontextmanager
async def start_scripted_service(
    folder: Path, *steps: Responder, **changes: Any
) -> AsyncIterator[tuple[ScriptedLLM, GatewayClient]]:
    async with ScriptedLLM(*steps) as llm:
        given = {"llm_model": "scripted", "llm_proxy_url": llm.url, "llm_retries": 0, "multi_agent_mode": False}
        async with start_service(None, settings_for(folder, **given, **changes)) as client:
            yield llm, client


def stream_whole_calls(reply: ScriptedReply, **each: Any) -> Responder:
    """Stream each call whole in an event of its own. `each` has the values of all calls; None leaves a field out."""
    told = [{"index": number, **call, **each} for number, call in enumerate(reply.tool_calls)]
    parts = [{name: value for name, value in call.items() if value is not None} for call in told]
    return respond_raw(
        encode_sse(*[build_delta(tool_calls=[part]) for part in parts], build_delta("tool_calls"), done=True)
    )


def stream_split_calls(reply: ScriptedReply, **each: Any) -> Responder:
    """Stream each call in pieces, as usual, with the values of `each` in all of them."""
    events = [event for event in reply.iter_events() if event["choices"]]
    for event in events:
        for call in event["choices"][0]["delta"].get("tool_calls", ()):
            call.update(each)
    return respond_raw(encode_sse(*events, done=True))


INDEX_VARIANTS: dict[str, Responder] = {
    "in order": BOTH_READS,
    "all 0": stream_whole_calls(BOTH_READS, index=0),
    "all 0, in pieces": stream_split_calls(BOTH_READS, index=0),
    "all 0, of one id": stream_whole_calls(BOTH_READS, index=0, id="call_1"),
    "all 0, without ids": stream_whole_calls(BOTH_READS, index=0, id=None),
    "all 0, with empty ids": stream_whole_calls(BOTH_READS, index=0, id=""),
    "not at all": stream_whole_calls(BOTH_READS, index=None),
    "not at all, without ids": stream_whole_calls(BOTH_READS, index=None, id=None),
}
all_index_variants = pytest.mark.parametrize(
    "step", [pytest.param(step, id=name) for name, step in INDEX_VARIANTS.items()]
)


def read_calls_and_results(request: Any) -> list[str]:
    """Return the arguments and the result of each call in the model's last message."""
    *_, message = [each for each in request.body["messages"] if each["role"] == "assistant"]
    answers = {m["tool_call_id"]: m["content"] for m in request.body["messages"] if m["role"] == "tool"}
    return [f"{call['function']['arguments']} {answers[call['id']]}" for call in message["tool_calls"]]


@all_index_variants
@pytest.mark.parametrize("streaming", [True, False])
async def test_only_the_first_call_is_kept_without_parallel_tools(
    tmp_path: Path, step: Responder, streaming: bool
) -> None:
    async with start_scripted_service(tmp_path, step, respond_text("Read."), llm_streaming=streaming) as (llm, client):
        session = client.open_session()
        hop, call = await session.send_text("Read both")
        assert (hop, call) == (UNIVERSAL_SWITCH, tool_call_chunk("read_file", call["call_id"], path="a.py"))
        assert await session.send_result("x", call["call_id"]) == [text_chunk("Read.")]
        assert len((await session.fetch_history())[1]["tool_calls"]) == 1
    assert llm.requests[0].body["parallel_tool_calls"] is False
    assert read_calls_and_results(llm.requests[1]) == ['{"path": "a.py"} x']


@all_index_variants
async def test_all_calls_are_sent_to_a_client_with_parallel_tools(tmp_path: Path, step: Responder) -> None:
    async with start_scripted_service(tmp_path, step, respond_text("Read.")) as (llm, client):
        session = client.open_session(parallel_tools=True)
        _, a, b = await session.send_text("Read both")
        assert a == tool_call_chunk("read_file", a["call_id"], path="a.py") | {"is_final": False}
        assert b == tool_call_chunk("read_file", b["call_id"], path="b.py")
        assert await session.send_result("of b", b["call_id"]) == []
        assert await session.send_result("of a", a["call_id"]) == [text_chunk("Read.")]
    assert llm.requests[0].body["parallel_tool_calls"] is True
    assert read_calls_and_results(llm.requests[1]) == ['{"path": "a.py"} of a', '{"path": "b.py"} of b']


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("each", [{}, {"index": 0}])
async def test_call_that_ends_the_turn_is_never_combined(tmp_path: Path, parallel: bool, each: Any) -> None:
    first, later = (
        stream_whole_calls(COMPLETION_CALL & READ_A, **each),
        stream_whole_calls(READ_A & COMPLETION_CALL, **each),
    )
    async with start_scripted_service(tmp_path, first, later, respond_text("Read.")) as (_, client):
        session = client.open_session(parallel_tools=parallel)
        assert await session.send_text("Read a.py") == [UNIVERSAL_SWITCH, COMPLETION_CHUNK]
        assert await session.send_text("Really?") == [tool_call_chunk("read_file", path="a.py")]
        assert await session.send_result("x") == [text_chunk("Read.")]
        called = [[c["function"]["name"] for c in m.get("tool_calls", ())] for m in await session.fetch_history()]
    assert [names for names in called if names] == [["attempt_completion"], ["read_file"]]


async def test_each_parallel_call_gets_its_own_decision(tmp_path: Path) -> None:
    names = ["a.py", "b.py", "c.py"]
    written = [respond_tool_call("write_file", id=f"call_{n}", path=path, content="x") for n, path in enumerate(names)]
    async with start_scripted_service(tmp_path, written[0] & written[1] & written[2], respond_text("Well.")) as (
        llm,
        client,
    ):
        session = client.open_session(parallel_tools=True)
        _, *pauses = await session.send_text("Write them")
        approvals = [write_approval_chunk(path, "x", f"call_{n}") for n, path in enumerate(names)]
        assert pauses == [{**pause, "is_final": pause is approvals[-1]} for pause in approvals]
        assert await session.decide("reject", "call_1", feedback="Not this one.") == []
        assert await session.decide("edit", "call_2", modified_arguments={"path": "d.py"}) == [
            tool_call_chunk("write_file", "call_2", path="d.py", content="x")
        ]
        assert await session.decide("approve", "call_0") == [
            tool_call_chunk("write_file", "call_0", path="a.py", content="x")
        ]
        (twice,) = await session.decide("approve", "call_1")
        assert twice["metadata"]["code"] == "call_not_open"
        assert await session.send_result("written", "call_2") == []
        assert await session.send_result("written", "call_0") == [text_chunk("Well.")]
        entries = (await session.get("/sessions/{id}/audit"))["entries"]
    decisions = [("call_1", "reject"), ("call_2", "edit"), ("call_0", "approve")]
    assert [(entry["call_id"], entry["decision"]) for entry in entries] == decisions
    a, b, d = read_calls_and_results(llm.requests[1])
    assert a == json.dumps({"path": "a.py", "content": "x"}) + " written"
    assert "b.py" in b
    assert "Not this one." in b
    assert "d.py" in d
    assert d.endswith("written")
