"""An agent that repeats itself a third time makes a question to the user; one that makes progress does not."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall

from graph.permissions.loops import POLL_LIMIT, REPEAT_LIMIT, detect_loop
from tests.support.properties import search_settings
from tests.support.scripted import call_tool, call_tools, list_roles, make_model, say_text
from tests.support.service import SessionClient, settings_for, start_service, text_chunk, tool_call_chunk

SUGGESTIONS = ["Go on.", "Try another way.", "Stop here, and say what you found."]
LOOP_QUESTION = (
    'I was about to call read_file a third time with {"path": "a.py"}, and nothing new was done in between. '
)
LOOP_QUESTION += "How should I go on?"
NOT_RUN = "not run: it was called twice before, and nothing new was done since; the user is asked how to go on"
LEFT_OUT = "not run: the turn ended with a question to the user"


def question_chunk(question: str, *, tokens: bool = False, **repeated: Any) -> dict[str, Any]:
    about = {"question": True, "suggestions": SUGGESTIONS, "repeated": {**repeated, "times": 3}}
    whole = text_chunk(question, metadata=about)
    return {k: v for k, v in whole.items() if k != "token"} if tokens else whole


def call_read_file(number: int, path: str = "a.py") -> Any:
    return call_tool("read_file", call_id=f"c{number}", path=path)


async def play_turn(session: SessionClient, request: str, *call_ids: str) -> list[dict[str, Any]]:
    """Send a request, approve and answer each call; return the last answer."""
    answer = await session.send_text(request)
    for call_id in call_ids:
        if answer[-1].get("requires_approval"):
            await session.decide("approve", call_id)
        answer = await session.send_result("ok", call_id)
    return answer


async def test_third_identical_call_is_a_question_to_the_user(database: str) -> None:
    llm = make_model(call_read_file(0), call_read_file(1), call_read_file(2), call_read_file(3), say_text("I see."))
    async with start_service(llm, settings_for(database)) as client:
        session = client.open_session()
        await session.switch("ask")
        assert await play_turn(session, "Read", "c0", "c1") == [question_chunk(LOOP_QUESTION, tool_name="read_file")]
        history = await session.fetch_history()
        assert (await session.get("/sessions/{id}/view"))["open_calls"] == []
        assert await session.send_text("Go on.") == [tool_call_chunk("read_file", "c3", path="a.py")]
        assert await session.send_result("ok", "c3") == [text_chunk("I see.")]
    assert [(m["role"], m["content"]) for m in history[-2:]] == [("tool", NOT_RUN), ("assistant", LOOP_QUESTION)]
    assert list_roles(llm.prompts[3])[-4:] == ["ai", "tool", "ai", "human"]


async def test_loop_question_is_streamed_like_any_text(tmp_path: Path) -> None:
    async with start_service(
        make_model(call_read_file(0), call_read_file(1), call_read_file(2)), settings_for(tmp_path)
    ) as client:
        session = client.open_session(tokens=True)
        await session.switch("ask")
        token, last = await play_turn(session, "Read", "c0", "c1")
    assert token == {"type": "assistant_message", "token": LOOP_QUESTION, "is_final": False}
    assert last == question_chunk(LOOP_QUESTION, tokens=True, tool_name="read_file")


async def test_alternating_edits_and_tests_are_no_loop(tmp_path: Path) -> None:
    lines = []
    for n in range(4):
        lines.append(call_tool("write_file", call_id=f"w{n}", path="a.py", content=f"{n}"))
        lines.append(call_tool("execute_command", call_id=f"t{n}", command="make test"))
        lines.append(call_read_file(n))
    async with start_service(make_model(*lines, say_text("It works.")), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.switch("coder")
        ids = [f"{kind}{n}" for n in range(4) for kind in "wtc"]
        assert await play_turn(session, "Mend it", *ids) == [text_chunk("It works.")]


async def test_repeating_the_same_edit_and_test_is_a_loop(tmp_path: Path) -> None:
    lines = []
    for n in range(3):
        lines.append(call_tool("write_file", call_id=f"w{n}", path="a.py", content="x"))
        lines.append(call_tool("execute_command", call_id=f"t{n}", command="make test"))
    async with start_service(make_model(*lines), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.switch("coder")
        (last,) = await play_turn(session, "Mend it", "w0", "t0", "w1", "t1", "w2")
    assert last["metadata"]["repeated"] == {"tool_name": "execute_command", "times": 3}


async def test_rejected_writes_are_no_progress(tmp_path: Path) -> None:
    """A rejected write changed nothing, however new it is."""
    lines = []
    for n in range(3):
        lines += [call_read_file(n), call_tool("write_file", call_id=f"w{n}", path=f"{n}.py", content="x")]
    async with start_service(make_model(*lines), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.switch("coder", content="Look")
        for n in range(2):
            await session.send_result("ok", f"c{n}")
            answer = await session.decide("reject", f"w{n}")
    assert answer == [question_chunk(LOOP_QUESTION, tool_name="read_file")]


async def test_repeated_handoffs_between_two_agents_are_a_loop(database: str) -> None:
    hops = [call_tool("switch_mode", call_id=f"s{n}", mode=mode) for n, mode in enumerate(("debug", "coder", "debug"))]
    said = "coder and debug hand this back and forth without progress. How should the work go on?"
    async with start_service(make_model(*hops, say_text("Well.")), settings_for(database)) as client:
        session = client.open_session()
        await session.switch("coder")
        first, second, last = await session.send_text("Mend it")
        assert [hop["metadata"]["to_agent"] for hop in (first, second)] == ["debug", "coder"]
        assert last == question_chunk(said, agents=["coder", "debug"])
        assert (await session.get("/agents/{id}/current"))["current_agent"] == "coder"
        assert await session.send_text("Try another way.") == [text_chunk("Well.")]


async def test_handoffs_with_progress_are_no_loop(tmp_path: Path) -> None:
    lines = []
    for n in range(3):
        lines += [
            call_tool("write_file", call_id=f"w{n}", path="a.py", content=f"{n}"),
            call_tool("switch_mode", call_id=f"s{n}", mode="debug"),
            call_tool("switch_mode", call_id=f"b{n}", mode="coder"),
        ]
    async with start_service(make_model(*lines, say_text("Done.")), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.switch("coder")
        assert (await play_turn(session, "Mend it", "w0", "w1", "w2"))[-1] == text_chunk("Done.")


async def test_parallel_calls_are_counted_one_by_one(tmp_path: Path) -> None:
    one, two = ("read_file", '{"path": "a.py"}'), ("write_file", '{"path": "b.py", "content": ""}')
    first = call_tools((one[0], "c0", one[1]), (one[0], "c1", one[1]))
    second = call_tools((one[0], "c2", one[1]), (two[0], "c3", two[1]))
    async with start_service(make_model(first, second), settings_for(tmp_path)) as client:
        session = client.open_session(parallel_tools=True)
        await session.switch("coder", content="Read")
        await session.send_result("ok", "c1")
        assert await session.send_result("ok", "c0") == [question_chunk(LOOP_QUESTION, tool_name="read_file")]
        told = [m["content"] for m in await session.fetch_history() if m["role"] == "tool"]
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 0
    assert told == ["ok", "ok", NOT_RUN, LEFT_OUT]


async def test_call_refused_three_times_is_a_loop(tmp_path: Path) -> None:
    lines = [call_tool("no_such_tool", call_id=f"c{n}") for n in range(3)]
    async with start_service(make_model(*lines), settings_for(tmp_path)) as client:
        (last,) = (await client.open_session().switch("coder", content="Go"))[1:]
    assert last["metadata"]["repeated"] == {"tool_name": "no_such_tool", "times": 3}


async def test_loop_question_is_replayed(tmp_path: Path) -> None:
    async with start_service(
        make_model(call_read_file(0), call_read_file(1), call_read_file(2)), settings_for(tmp_path)
    ) as client:
        session = client.open_session()
        await session.switch("ask")
        last = await play_turn(session, "Read", "c0", "c1")
        joined = await client.http.get("/sessions/s-1/stream")
        assert LOOP_QUESTION.replace('"', '\\"') in joined.text
        assert await session.send_result("ok", "c1") == last


async def play_results(session: SessionClient, *results: str) -> list[dict[str, Any]]:
    """Answer the calls c0, c1, ... of a turn with these results; return the last answer."""
    answer = await session.send_text("Watch the build")
    for number, result in enumerate(results):
        assert answer == [tool_call_chunk("execute_command", f"c{number}", command=POLL)]
        answer = await session.send_result(result, f"c{number}")
    return answer


POLL = "tail -n 1 build.log"


@pytest.mark.parametrize(
    ("results", "question"),
    [
        (["0 %", "30 %", "60 %", "90 %", "100 %"], None),
        (["0 %", "0 %"], ("a third time with", 3)),
        (["0 %", "30 %", "0 %"], None),
        (["0 %", "30 %", "60 %", "60 %"], ("for the 5th time with", 5)),
        ([f"{n} %" for n in range(POLL_LIMIT - 2)], None),
        ([f"{n} %" for n in range(POLL_LIMIT - 1)], ("for the 20th time with", POLL_LIMIT)),
    ],
    ids=["news", "no news", "back and forth", "no news later", "below the limit", "for ever"],
)
async def test_another_result_is_news(tmp_path: Path, results: list[str], question: tuple[str, int] | None) -> None:
    """Only the same call with the same result is a repetition. Polling has a limit of its own."""
    calls = [call_tool("execute_command", call_id=f"c{n}", command=POLL) for n in range(len(results))]
    asked = [*calls, call_tool("execute_command", call_id="last", command=POLL) if question else say_text("Built.")]
    async with start_service(make_model(*asked), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.switch("debug")
        (last,) = await play_results(session, *results)
        if question is None:
            assert last == text_chunk("Built.")
            return
        asked_words, times = question
        assert f"I was about to call execute_command {asked_words} " in last["content"]
        assert last["metadata"]["repeated"] == {"tool_name": "execute_command", "times": times}
        told = [m["content"] for m in await session.fetch_history() if m["role"] == "tool"]
    assert told[-1].startswith("not run: it was called " + ("twice" if times == 3 else f"{times - 1} times"))


async def test_unreadable_calls_are_no_repetitions(tmp_path: Path) -> None:
    """The arguments of such a call are not known: it is not the same call as one without arguments."""
    half = ("list_files", "call_1", '{"path": "a')
    lines = [call_tools(half), call_tools(half), call_tool("list_files"), say_text("I see.")]
    async with start_service(make_model(*lines), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.switch("ask")
        (call,) = await session.send_text("List")
        assert call["tool_name"] == "list_files"
        assert await session.send_result("a.py", call["call_id"]) == [text_chunk("I see.")]


FileAction = tuple[str, int]
"""A tool, read or write, and the number of a file."""


def build_turn(steps: list[FileAction]) -> tuple[list[AnyMessage], list[RequestedCall]]:
    """Return the messages of a turn with these steps, and the calls of its last step, which have no result."""
    messages: list[AnyMessage] = [HumanMessage("Go")]
    asked: list[RequestedCall] = []
    for number, (tool, file) in enumerate(steps):
        asked = [RequestedCall(name=tool, args={"path": str(file)}, id=f"c{number}", type="tool_call")]
        messages += [AIMessage("", name="coder", tool_calls=asked), ToolMessage("ok", tool_call_id=f"c{number}")]
    return messages[:-1], asked


@search_settings(100)
@given(st.lists(st.tuples(st.sampled_from(["read", "write"]), st.integers(0, 2)), min_size=1, max_size=12))
def test_loop_is_detected_at_the_third_call_without_a_new_change(steps: list[FileAction]) -> None:
    messages, asked = build_turn(steps)
    found = detect_loop(messages, asked, lambda _, call: call["name"] == "write")
    new = [n for n, step in enumerate(steps) if step[0] == "write" and step not in steps[:n]]
    since = steps[new[-1] :] if new else steps
    assert (found is not None) == (since.count(steps[-1]) >= REPEAT_LIMIT)


@search_settings(100)
@given(st.lists(st.tuples(st.sampled_from(["read", "write"]), st.integers(0, 1)), max_size=12))
def test_calls_of_earlier_turns_do_not_count(before: list[FileAction]) -> None:
    earlier, _ = build_turn([*before, ("read", 0)])
    messages, asked = build_turn([("read", 0), ("read", 0)])
    assert detect_loop([*earlier, *messages], asked, lambda *_: False) is None
