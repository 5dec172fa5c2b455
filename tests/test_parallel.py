"""One call at a time, whatever the model's service makes of the flag; and several for a client that asked for them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.llm_server import Reply, ScriptedLLM, Step, calls, delta, raw, says, sse
from tests.service import Client, service, settings_for, switched, text, tool_call, write_approval

pytestmark = pytest.mark.anyio

READ_A, READ_B = calls("read_file", path="a.py"), calls("read_file", id="call_2", path="b.py")
BOTH = READ_A & READ_B
DONE = calls("attempt_completion", id="call_3", result="Done.")
COMPLETED = text("Done.", metadata={"completion": True})
HOP = switched(
    "orchestrator", "universal", "There is no other agent.", confidence="high", classification_method="keywords"
)


@asynccontextmanager
async def talk(folder: Path, *steps: Step, **changes: Any) -> AsyncIterator[tuple[ScriptedLLM, Client]]:
    async with ScriptedLLM(*steps) as llm:
        given = {"llm_model": "scripted", "llm_proxy_url": llm.url, "llm_retries": 0, "multi_agent_mode": False}
        async with service(None, settings_for(folder, **given, **changes)) as client:
            yield llm, client


def in_one_piece(reply: Reply, **each: Any) -> Step:
    """A stream with each call whole in an event of its own. `each`: what is the same in all; None: not there at all."""
    told = [{"index": number, **call, **each} for number, call in enumerate(reply.tool_calls)]
    parts = [{name: value for name, value in call.items() if value is not None} for call in told]
    return raw(sse(*[delta(tool_calls=[part]) for part in parts], delta("tool_calls"), done=True))


def in_pieces(reply: Reply, **each: Any) -> Step:
    """As usual, who and then the arguments, but for `each`."""
    events = [event for event in reply.events() if event["choices"]]
    for event in events:
        for call in event["choices"][0]["delta"].get("tool_calls", ()):
            call.update(each)
    return raw(sse(*events, done=True))


NUMBERED: dict[str, Step] = {
    "in order": BOTH,
    "all 0": in_one_piece(BOTH, index=0),
    "all 0, in pieces": in_pieces(BOTH, index=0),
    "all 0, of one id": in_one_piece(BOTH, index=0, id="call_1"),
    "all 0, without ids": in_one_piece(BOTH, index=0, id=None),
    "all 0, with empty ids": in_one_piece(BOTH, index=0, id=""),
    "not at all": in_one_piece(BOTH, index=None),
    "not at all, without ids": in_one_piece(BOTH, index=None, id=None),
}
numbered = pytest.mark.parametrize("step", [pytest.param(step, id=name) for name, step in NUMBERED.items()])


def asked(request: Any) -> list[str]:
    """The arguments of the calls in the model's last message, and what it was told of them."""
    *_, message = [each for each in request.body["messages"] if each["role"] == "assistant"]
    answers = {m["tool_call_id"]: m["content"] for m in request.body["messages"] if m["role"] == "tool"}
    return [f"{call['function']['arguments']} {answers[call['id']]}" for call in message["tool_calls"]]


@numbered
@pytest.mark.parametrize("streaming", [True, False])
async def test_the_first_of_several_calls_is_kept(tmp_path: Path, step: Step, streaming: bool) -> None:
    async with talk(tmp_path, step, says("Read."), llm_streaming=streaming) as (llm, client):
        session = client.session()
        hop, call = await session.user("Read both")
        assert (hop, call) == (HOP, tool_call("read_file", call["call_id"], path="a.py"))
        assert await session.result("x", call["call_id"]) == [text("Read.")]
        assert len((await session.history())[1]["tool_calls"]) == 1
    assert llm.requests[0].body["parallel_tool_calls"] is False
    assert asked(llm.requests[1]) == ['{"path": "a.py"} x']


@numbered
async def test_all_of_them_are_sent_to_a_client_that_asked_for_it(tmp_path: Path, step: Step) -> None:
    async with talk(tmp_path, step, says("Read.")) as (llm, client):
        session = client.session(parallel_tools=True)
        _, a, b = await session.user("Read both")
        assert a == tool_call("read_file", a["call_id"], path="a.py") | {"is_final": False}
        assert b == tool_call("read_file", b["call_id"], path="b.py")
        assert await session.result("of b", b["call_id"]) == []
        assert await session.result("of a", a["call_id"]) == [text("Read.")]
    assert llm.requests[0].body["parallel_tool_calls"] is True
    assert asked(llm.requests[1]) == ['{"path": "a.py"} of a', '{"path": "b.py"} of b']


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("each", [{}, {"index": 0}])
async def test_a_call_that_ends_the_turn_stands_alone(tmp_path: Path, parallel: bool, each: Any) -> None:
    first, later = in_one_piece(DONE & READ_A, **each), in_one_piece(READ_A & DONE, **each)
    async with talk(tmp_path, first, later, says("Read.")) as (_, client):
        session = client.session(parallel_tools=parallel)
        assert await session.user("Read a.py") == [HOP, COMPLETED]
        assert await session.user("Really?") == [tool_call("read_file", path="a.py")]
        assert await session.result("x") == [text("Read.")]
        called = [[c["function"]["name"] for c in m.get("tool_calls", ())] for m in await session.history()]
    assert [names for names in called if names] == [["attempt_completion"], ["read_file"]]


async def test_each_of_several_calls_gets_a_decision_of_its_own(tmp_path: Path) -> None:
    names = ["a.py", "b.py", "c.py"]
    written = [calls("write_file", id=f"call_{n}", path=path, content="x") for n, path in enumerate(names)]
    async with talk(tmp_path, written[0] & written[1] & written[2], says("Well.")) as (llm, client):
        session = client.session(parallel_tools=True)
        _, *pauses = await session.user("Write them")
        approvals = [write_approval(path, "x", f"call_{n}") for n, path in enumerate(names)]
        assert pauses == [{**pause, "is_final": pause is approvals[-1]} for pause in approvals]
        assert await session.decide("reject", "call_1", feedback="Not this one.") == []
        assert await session.decide("edit", "call_2", modified_arguments={"path": "d.py"}) == [
            tool_call("write_file", "call_2", path="d.py", content="x")
        ]
        assert await session.decide("approve", "call_0") == [
            tool_call("write_file", "call_0", path="a.py", content="x")
        ]
        (twice,) = await session.decide("approve", "call_1")
        assert twice["metadata"]["code"] == "call_not_open"
        assert await session.result("written", "call_2") == []
        assert await session.result("written", "call_0") == [text("Well.")]
        entries = (await session.get("/sessions/{id}/audit"))["entries"]
    decisions = [("call_1", "reject"), ("call_2", "edit"), ("call_0", "approve")]
    assert [(entry["call_id"], entry["decision"]) for entry in entries] == decisions
    a, b, d = asked(llm.requests[1])
    assert a == json.dumps({"path": "a.py", "content": "x"}) + " written"
    assert "b.py" in b
    assert "Not this one." in b
    assert "d.py" in d
    assert d.endswith("written")
