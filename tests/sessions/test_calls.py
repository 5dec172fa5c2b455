"""One list shows the status of each tool call."""

import asyncio
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.scripted import DeferredReply, call_tool, call_tools, choose_agent, make_model, say_text
from tests.support.service import SessionClient, settings_for, start_service, text_chunk

WRITE_CALL = call_tool("write_file", path="a.py", content="x")
READ_CALL = call_tool("read_file", path="a.py")
DECISION_FIELDS = ("status", "decision", "decided_by")


async def fetch_calls(session: SessionClient) -> list[dict[str, Any]]:
    found = await session.get("/sessions/{id}/calls")
    assert found["count"] == len(found["calls"])
    return list(found["calls"])


async def summarize_calls(session: SessionClient) -> list[tuple[Any, ...]]:
    """Return the id, the status, the decision, its author and the initials of the known times of each call."""
    times = ("proposed_at", "decided_at", "sent_at", "answered_at")
    told = []
    for call in await fetch_calls(session):
        initials = "".join(name[0] for name in times if call[name])
        told.append((call["call_id"], *(call[name] for name in DECISION_FIELDS), initials))
    return told


async def test_call_is_listed_from_its_proposal_to_its_result(database: str) -> None:
    async with start_service(
        make_model(choose_agent("coder"), WRITE_CALL, say_text("Written.")), settings_for(database)
    ) as client:
        session = client.open_session()
        assert (await client.http.get("/sessions/s-1/calls")).status_code == 404
        await session.send_text("Write a.py")
        (asked,) = await fetch_calls(session)
        assert await summarize_calls(session) == [("call_1", "asked", None, None, "p")]
        await session.decide("approve")
        assert await summarize_calls(session) == [("call_1", "sent", "approve", "hitl_decision", "pds")]
        await session.send_result("done")
        assert await summarize_calls(session) == [("call_1", "answered", "approve", "hitl_decision", "pdsa")]
    assert asked == {
        "call_id": "call_1",
        "tool_name": "write_file",
        "agent": "coder",
        "arguments": {"path": "a.py", "content": "x"},
        "rule": "write.file",
        "status": "asked",
        "proposed_at": asked["proposed_at"],
        "decision": None,
        "decided_by": None,
        "decided_at": None,
        "sent_at": None,
        "answered_at": None,
    }


async def test_parallel_calls_are_listed_with_their_own_status(database: str) -> None:
    held = DeferredReply(say_text("Well."))
    both = call_tools(
        ("write_file", "call_1", '{"path": "a", "content": ""}'), ("read_file", "call_2", '{"path": "b"}')
    )
    async with start_service(make_model(choose_agent("coder"), both, held), settings_for(database)) as client:
        session = client.open_session(parallel_tools=True)
        await session.send_text("Both")
        assert await summarize_calls(session) == [
            ("call_1", "asked", None, None, "p"),
            ("call_2", "sent", None, None, "ps"),
        ]
        assert [chunk["call_id"] for chunk in await session.decide("approve")] == ["call_1"]
        assert await session.send_result("b", "call_2") == []
        answering = asyncio.create_task(session.send_result("a"))
        await held.requested.wait()
        assert [each[:2] for each in await summarize_calls(session)] == [("call_1", "answered"), ("call_2", "answered")]
        held.release.set()
        await answering


async def test_edited_call_is_listed_with_the_edited_arguments(database: str) -> None:
    async with start_service(
        make_model(choose_agent("coder"), WRITE_CALL, say_text("Written.")), settings_for(database)
    ) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        (refused,) = await session.decide("edit", modified_arguments={"path": "../b.py"})
        assert refused["metadata"]["code"] == "edit_refused"
        assert await summarize_calls(session) == [("call_1", "asked", None, None, "p")]
        await session.decide("edit", modified_arguments={"path": "b.py"})
        await session.send_result("done")
        assert await summarize_calls(session) == [("call_1", "answered", "edit", "hitl_decision", "pdsa")]
        assert (await fetch_calls(session))[0]["arguments"] == {"path": "b.py", "content": "x"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"type": "hitl_decision", "decision": "reject"}, ("rejected", "reject", "hitl_decision", "pda")),
        ({"type": "tool_result", "result": "done"}, ("answered", "approve", "tool_result", "pda")),
        ({"type": "tool_result", "error": "User rejected it"}, ("rejected", "reject", "tool_result", "pda")),
        ({"type": "tool_result", "error": "disk full"}, ("failed", "failed", "tool_result", "pda")),
        ({"type": "tool_result", "error": "Ошибка валидации: path"}, ("failed", "failed", "tool_result", "pda")),
        ({"type": "user_message", "content": "No, wait"}, ("cancelled", "cancel", "system", "pda")),
        ({"type": "switch_agent", "agent_type": "ask"}, ("cancelled", "cancel", "system", "pda")),
    ],
)
async def test_open_approval_is_ended_by_each_kind_of_message(
    database: str, said: dict[str, Any], expected: tuple[str, ...]
) -> None:
    async with start_service(
        make_model(choose_agent("coder"), WRITE_CALL, say_text("Well.")), settings_for(database)
    ) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        await session.send({"call_id": "call_1", **said})
        assert await summarize_calls(session) == [("call_1", *expected)]


async def test_cancelling_a_session_cancels_its_calls(database: str) -> None:
    async with start_service(make_model(choose_agent("coder"), READ_CALL), settings_for(database)) as client:
        await client.open_session().send_text("Read a.py")
        assert await summarize_calls(client.open_session()) == [("call_1", "sent", None, None, "ps")]
        await client.http.post("/sessions/s-1/cancel")
        assert await summarize_calls(client.open_session()) == [("call_1", "cancelled", "cancel", "system", "pdsa")]


async def test_expired_approval_is_listed_as_expired(database: str) -> None:
    settings = settings_for(database, approval_timeout_seconds=0.01)
    async with start_service(make_model(choose_agent("coder"), WRITE_CALL, say_text("Well.")), settings) as client:
        session = client.open_session()
        await session.send_text("Write a.py")

        async def is_closed() -> bool:
            return bool((await summarize_calls(session))[0][1] != "asked")

        await eventually(is_closed, "the approval is closed")
        assert await summarize_calls(session) == [("call_1", "expired", "expire", "system", "pda")]
        (late,) = await session.decide("approve")
        assert late["metadata"]["code"] == "call_not_open"


async def test_call_approved_by_a_grant_is_listed_as_such(database: str) -> None:
    again = call_tool("write_file", call_id="call_2", path="a.py", content="y")
    async with start_service(make_model(choose_agent("coder"), WRITE_CALL, again), settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("Write a.py twice")
        await session.decide("approve", remember={"scope": "turn"})
        await session.send_result("done")
        assert [each[:4] for each in await summarize_calls(session)] == [
            ("call_1", "answered", "approve", "hitl_decision"),
            ("call_2", "sent", "approve", "grant"),
        ]


async def test_local_calls_are_listed_from_the_history(database: str) -> None:
    lines = (
        call_tool("calculator", call_id="sum", expr="1 / 0"),
        call_tool("write_file", call_id="denied", path="a.py", content="x"),
        call_tools(("read_file", "unreadable", "[1]")),
        call_tool("attempt_completion", call_id="end", result="Done."),
    )
    async with start_service(make_model(choose_agent("architect"), *lines), settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("Go")
        found = await fetch_calls(session)
    nothing = dict.fromkeys(["rule", "proposed_at", *DECISION_FIELDS[1:], "decided_at", "sent_at", "answered_at"])
    by_architect = {**nothing, "agent": "architect"}
    written = {"path": "a.py", "content": "x"}
    assert found == [
        {**by_architect, "call_id": "sum", "tool_name": "calculator", "arguments": {"expr": "1 / 0"}}
        | {"status": "answered"},
        {**by_architect, "call_id": "denied", "tool_name": "write_file", "arguments": written, "status": "refused"},
        {**by_architect, "call_id": "unreadable", "tool_name": "read_file", "arguments": {}, "status": "refused"},
        {**by_architect, "call_id": "end", "tool_name": "attempt_completion", "arguments": {"result": "Done."}}
        | {"status": "answered"},
    ]


async def test_tool_call_times_out_and_the_model_receives_an_error(database: str) -> None:
    held = DeferredReply(say_text("It did not answer."))
    settings = settings_for(database, tool_timeout_seconds=0.02)
    llm = make_model(choose_agent("coder"), READ_CALL, held)
    async with start_service(llm, settings) as client:
        session = client.open_session()
        assert (await session.send_text("Read a.py"))[-1]["type"] == "tool_call"
        await held.requested.wait()
        held.release.set()
        await client.http.get("/sessions/s-1/stream")
        (late,) = await session.send_result("x = 1")
        history = await session.fetch_history()
        assert await summarize_calls(session) == [("call_1", "answered", None, None, "psa")]
    assert (late["metadata"]["code"], late["error"]) == (
        "call_not_open",
        "The call 'call_1' does not wait for an answer. No call is open.",
    )
    told = "Error: timed out: no result came within 0.02 seconds; whether the call ran is not known"
    assert history[2] == {"role": "tool", "content": told, "tool_call_id": "call_1", "name": "read_file"}
    assert history[3] == {"role": "assistant", "content": "It did not answer."}


async def test_open_calls_of_a_deleted_session_do_not_block_timeouts(database: str) -> None:
    held = DeferredReply(say_text("It did not answer."))
    async with start_service(make_model(choose_agent("coder"), READ_CALL), settings_for(database)) as client:
        await client.open_session("s-1").send_text("Read a.py")
        await client.http.delete("/sessions/s-1")
    settings = settings_for(database, tool_timeout_seconds=0.02)
    async with start_service(make_model(choose_agent("coder"), READ_CALL, held), settings) as client:
        await client.open_session("s-2").send_text("Read a.py")
        await held.requested.wait()
        held.release.set()
        await client.http.get("/sessions/s-2/stream")
        assert (await client.open_session("s-2").fetch_history())[-1] == {
            "role": "assistant",
            "content": "It did not answer.",
        }


async def test_tool_timeout_does_not_apply_to_an_open_approval(database: str) -> None:
    settings = settings_for(database, tool_timeout_seconds=0.01)
    async with start_service(make_model(choose_agent("coder"), WRITE_CALL, say_text("No.")), settings) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        for _ in range(20):
            assert await summarize_calls(session) == [("call_1", "asked", None, None, "p")]
        assert await session.decide("reject") == [text_chunk("No.")]
