"""Agents that go round in circles: the third time the user is asked. Those who get on are left alone."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall

from graph.permissions.loops import REPEAT_LIMIT, detect_loop
from tests.scripted import asks, calls, model, roles, says
from tests.service import Session, service, settings_for, text, tool_call

pytestmark = pytest.mark.anyio

SUGGESTIONS = ["Go on.", "Try another way.", "Stop here, and say what you found."]
AGAIN = 'I was about to call read_file a third time with {"path": "a.py"}, and nothing new was done in between. '
AGAIN += "How should I go on?"
NOT_RUN = "not run: it was called twice before, and nothing new was done since; the user is asked how to go on"
LEFT_OUT = "not run: the turn ended with a question to the user"


def asked(said: str, *, tokens: bool = False, **repeated: Any) -> dict[str, Any]:
    about = {"question": True, "suggestions": SUGGESTIONS, "repeated": {**repeated, "times": 3}}
    whole = text(said, metadata=about)
    return {k: v for k, v in whole.items() if k != "token"} if tokens else whole


def read(number: int, path: str = "a.py") -> Any:
    return calls("read_file", call_id=f"c{number}", path=path)


async def play(session: Session, request: str, *call_ids: str) -> list[dict[str, Any]]:
    """Approves what asks, and runs every call; the last answer."""
    answer = await session.user(request)
    for call_id in call_ids:
        if answer[-1].get("requires_approval"):
            await session.decide("approve", call_id)
        answer = await session.result("ok", call_id)
    return answer


async def test_the_same_call_a_third_time_is_a_question_to_the_user(database: str) -> None:
    llm = model(read(0), read(1), read(2), read(3), says("I see."))
    async with service(llm, settings_for(database)) as client:
        session = client.session()
        await session.switch("ask")
        assert await play(session, "Read", "c0", "c1") == [asked(AGAIN, tool_name="read_file")]
        history = await session.history()
        assert (await session.get("/sessions/{id}/view"))["open_calls"] == []
        assert await session.user("Go on.") == [tool_call("read_file", "c3", path="a.py")]
        assert await session.result("ok", "c3") == [text("I see.")]
    assert [(m["role"], m["content"]) for m in history[-2:]] == [("tool", NOT_RUN), ("assistant", AGAIN)]
    assert roles(llm.heard[3])[-4:] == ["ai", "tool", "ai", "human"]


async def test_it_is_streamed_as_any_text(tmp_path: Path) -> None:
    async with service(model(read(0), read(1), read(2)), settings_for(tmp_path)) as client:
        session = client.session(tokens=True)
        await session.switch("ask")
        token, last = await play(session, "Read", "c0", "c1")
    assert token == {"type": "assistant_message", "token": AGAIN, "is_final": False}
    assert last == asked(AGAIN, tokens=True, tool_name="read_file")


async def test_who_edits_and_tests_and_edits_again_is_at_work(tmp_path: Path) -> None:
    lines = []
    for n in range(4):
        lines.append(calls("write_file", call_id=f"w{n}", path="a.py", content=f"{n}"))
        lines.append(calls("execute_command", call_id=f"t{n}", command="make test"))
        lines.append(read(n))
    async with service(model(*lines, says("It works.")), settings_for(tmp_path)) as client:
        session = client.session()
        await session.switch("coder")
        ids = [f"{kind}{n}" for n in range(4) for kind in "wtc"]
        assert await play(session, "Mend it", *ids) == [text("It works.")]


async def test_the_same_edit_and_the_same_test_are_no_progress(tmp_path: Path) -> None:
    lines = []
    for n in range(3):
        lines.append(calls("write_file", call_id=f"w{n}", path="a.py", content="x"))
        lines.append(calls("execute_command", call_id=f"t{n}", command="make test"))
    async with service(model(*lines), settings_for(tmp_path)) as client:
        session = client.session()
        await session.switch("coder")
        (last,) = await play(session, "Mend it", "w0", "t0", "w1", "t1", "w2")
    assert last["metadata"]["repeated"] == {"tool_name": "execute_command", "times": 3}


async def test_writes_that_the_user_rejected_are_no_progress(tmp_path: Path) -> None:
    """They changed nothing, however new they are."""
    lines = []
    for n in range(3):
        lines += [read(n), calls("write_file", call_id=f"w{n}", path=f"{n}.py", content="x")]
    async with service(model(*lines), settings_for(tmp_path)) as client:
        session = client.session()
        await session.switch("coder", content="Look")
        for n in range(2):
            await session.result("ok", f"c{n}")
            answer = await session.decide("reject", f"w{n}")
    assert answer == [asked(AGAIN, tool_name="read_file")]


async def test_two_agents_that_hand_the_work_back_and_forth(database: str) -> None:
    hops = [calls("switch_mode", call_id=f"s{n}", mode=mode) for n, mode in enumerate(("debug", "coder", "debug"))]
    said = "coder and debug hand this back and forth without getting on. How should it go on?"
    async with service(model(*hops, says("Well.")), settings_for(database)) as client:
        session = client.session()
        await session.switch("coder")
        first, second, last = await session.user("Mend it")
        assert [hop["metadata"]["to_agent"] for hop in (first, second)] == ["debug", "coder"]
        assert last == asked(said, agents=["coder", "debug"])
        assert (await session.get("/agents/{id}/current"))["current_agent"] == "coder"
        assert await session.user("Try another way.") == [text("Well.")]


async def test_agents_that_get_on_may_hand_over_again(tmp_path: Path) -> None:
    lines = []
    for n in range(3):
        lines += [
            calls("write_file", call_id=f"w{n}", path="a.py", content=f"{n}"),
            calls("switch_mode", call_id=f"s{n}", mode="debug"),
            calls("switch_mode", call_id=f"b{n}", mode="coder"),
        ]
    async with service(model(*lines, says("Done.")), settings_for(tmp_path)) as client:
        session = client.session()
        await session.switch("coder")
        assert (await play(session, "Mend it", "w0", "w1", "w2"))[-1] == text("Done.")


async def test_parallel_calls_are_counted_one_by_one_and_all_answered(tmp_path: Path) -> None:
    one, two = ("read_file", '{"path": "a.py"}'), ("write_file", '{"path": "b.py", "content": ""}')
    first = asks((one[0], "c0", one[1]), (one[0], "c1", one[1]))
    second = asks((one[0], "c2", one[1]), (two[0], "c3", two[1]))
    async with service(model(first, second), settings_for(tmp_path)) as client:
        session = client.session(parallel_tools=True)
        await session.switch("coder", content="Read")
        await session.result("ok", "c1")
        assert await session.result("ok", "c0") == [asked(AGAIN, tool_name="read_file")]
        told = [m["content"] for m in await session.history() if m["role"] == "tool"]
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
    assert told == ["ok", "ok", NOT_RUN, LEFT_OUT]


async def test_a_call_that_is_refused_again_and_again_ends_in_a_question_too(tmp_path: Path) -> None:
    lines = [calls("no_such_tool", call_id=f"c{n}") for n in range(3)]
    async with service(model(*lines), settings_for(tmp_path)) as client:
        (last,) = (await client.session().switch("coder", content="Go"))[1:]
    assert last["metadata"]["repeated"] == {"tool_name": "no_such_tool", "times": 3}


async def test_the_question_is_told_again_to_who_did_not_get_it(tmp_path: Path) -> None:
    async with service(model(read(0), read(1), read(2)), settings_for(tmp_path)) as client:
        session = client.session()
        await session.switch("ask")
        last = await play(session, "Read", "c0", "c1")
        joined = await client.http.get("/sessions/s-1/stream")
        assert AGAIN.replace('"', '\\"') in joined.text
        assert await session.result("ok", "c1") == last


Step = tuple[str, int]
"""What is done: read or write, and to which of a few files."""


def done(steps: list[Step]) -> tuple[list[AnyMessage], list[RequestedCall]]:
    """A turn of these steps, of which the last is asked for."""
    messages: list[AnyMessage] = [HumanMessage("Go")]
    asked: list[RequestedCall] = []
    for number, (tool, file) in enumerate(steps):
        asked = [RequestedCall(name=tool, args={"path": str(file)}, id=f"c{number}", type="tool_call")]
        messages += [AIMessage("", name="coder", tool_calls=asked), ToolMessage("ok", tool_call_id=f"c{number}")]
    return messages[:-1], asked


@given(st.lists(st.tuples(st.sampled_from(["read", "write"]), st.integers(0, 2)), min_size=1, max_size=12))
def test_it_is_asked_exactly_when_a_call_comes_a_third_time_since_the_last_new_change(steps: list[Step]) -> None:
    messages, asked = done(steps)
    found = detect_loop(messages, asked, lambda _, call: call["name"] == "write")
    new = [n for n, step in enumerate(steps) if step[0] == "write" and step not in steps[:n]]
    since = steps[new[-1] :] if new else steps
    assert (found is not None) == (since.count(steps[-1]) >= REPEAT_LIMIT)


@given(st.lists(st.tuples(st.sampled_from(["read", "write"]), st.integers(0, 1)), max_size=12))
def test_what_was_done_before_the_users_message_does_not_count(before: list[Step]) -> None:
    earlier, _ = done([*before, ("read", 0)])
    messages, asked = done([("read", 0), ("read", 0)])
    assert detect_loop([*earlier, *messages], asked, lambda *_: False) is None
