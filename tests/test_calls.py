"""What became of each tool call, told in one list."""

import asyncio
from typing import Any

import pytest

from tests.scripted import Held, asks, calls, chooses, model, says
from tests.service import Session, service, settings_for, text

pytestmark = pytest.mark.anyio

WRITE = calls("write_file", path="a.py", content="x")
READ = calls("read_file", path="a.py")
DECIDED = ("status", "decision", "decided_by")


async def listed(session: Session) -> list[dict[str, Any]]:
    found = await session.get("/sessions/{id}/calls")
    assert found["count"] == len(found["calls"])
    return list(found["calls"])


async def became(session: Session) -> list[tuple[Any, ...]]:
    """Of each call its id, its status, the decision and who made it, and which times are known."""
    times = ("proposed_at", "decided_at", "sent_at", "answered_at")
    told = []
    for call in await listed(session):
        initials = "".join(name[0] for name in times if call[name])
        told.append((call["call_id"], *(call[name] for name in DECIDED), initials))
    return told


async def test_a_call_from_its_proposal_to_its_result(database: str) -> None:
    async with service(model(chooses("coder"), WRITE, says("Written.")), settings_for(database)) as client:
        session = client.session()
        assert (await client.http.get("/sessions/s-1/calls")).status_code == 404
        await session.user("Write a.py")
        (asked,) = await listed(session)
        assert await became(session) == [("call_1", "asked", None, None, "p")]
        await session.decide("approve")
        assert await became(session) == [("call_1", "sent", "approve", "hitl_decision", "pds")]
        await session.result("done")
        assert await became(session) == [("call_1", "answered", "approve", "hitl_decision", "pdsa")]
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


async def test_while_an_approval_is_at_work_it_is_approved_and_not_yet_sent(database: str) -> None:
    held = Held(says("Well."))
    both = asks(("write_file", "call_1", '{"path": "a", "content": ""}'), ("read_file", "call_2", '{"path": "b"}'))
    async with service(model(chooses("coder"), both, held), settings_for(database)) as client:
        session = client.session(parallel_tools=True)
        await session.user("Both")
        assert await became(session) == [("call_1", "asked", None, None, "p"), ("call_2", "sent", None, None, "ps")]
        assert [chunk["call_id"] for chunk in await session.decide("approve")] == ["call_1"]
        assert await session.result("b", "call_2") == []
        answering = asyncio.create_task(session.result("a"))
        await held.asked.wait()
        assert [each[:2] for each in await became(session)] == [("call_1", "answered"), ("call_2", "answered")]
        held.release.set()
        await answering


async def test_an_edited_call_is_told_with_the_arguments_that_ran(database: str) -> None:
    async with service(model(chooses("coder"), WRITE, says("Written.")), settings_for(database)) as client:
        session = client.session()
        await session.user("Write a.py")
        (refused,) = await session.decide("edit", modified_arguments={"path": "../b.py"})
        assert refused["metadata"]["code"] == "edit_refused"
        assert await became(session) == [("call_1", "asked", None, None, "p")]
        await session.decide("edit", modified_arguments={"path": "b.py"})
        await session.result("done")
        assert await became(session) == [("call_1", "answered", "edit", "hitl_decision", "pdsa")]
        assert (await listed(session))[0]["arguments"] == {"path": "b.py", "content": "x"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"type": "hitl_decision", "decision": "reject"}, ("rejected", "reject", "hitl_decision", "pda")),
        ({"type": "tool_result", "result": "done"}, ("answered", "approve", "tool_result", "pda")),
        ({"type": "tool_result", "error": "User rejected it"}, ("rejected", "reject", "tool_result", "pda")),
        ({"type": "tool_result", "error": "disk full"}, ("answered", "approve", "tool_result", "pda")),
        ({"type": "user_message", "content": "No, wait"}, ("cancelled", "cancel", "system", "pda")),
        ({"type": "switch_agent", "agent_type": "ask"}, ("cancelled", "cancel", "system", "pda")),
    ],
)
async def test_what_ends_an_approval(database: str, said: dict[str, Any], expected: tuple[str, ...]) -> None:
    async with service(model(chooses("coder"), WRITE, says("Well.")), settings_for(database)) as client:
        session = client.session()
        await session.user("Write a.py")
        await session.send({"call_id": "call_1", **said})
        assert await became(session) == [("call_1", *expected)]


async def test_a_cancelled_session_has_cancelled_calls(database: str) -> None:
    async with service(model(chooses("coder"), READ), settings_for(database)) as client:
        await client.session().user("Read a.py")
        assert await became(client.session()) == [("call_1", "sent", None, None, "ps")]
        await client.http.post("/sessions/s-1/cancel")
        assert await became(client.session()) == [("call_1", "cancelled", "cancel", "system", "pdsa")]


async def test_an_approval_that_expires(database: str) -> None:
    settings = settings_for(database, approval_timeout_seconds=0.01)
    async with service(model(chooses("coder"), WRITE, says("Well.")), settings) as client:
        session = client.session()
        await session.user("Write a.py")
        while (told := await became(session))[0][1] == "asked":
            await session.get("/sessions/{id}")
        assert told == [("call_1", "expired", "expire", "system", "pda")]
        (late,) = await session.decide("approve")
        assert late["metadata"]["code"] == "call_not_open"


async def test_a_call_that_a_grant_lets_pass(database: str) -> None:
    again = calls("write_file", call_id="call_2", path="a.py", content="y")
    async with service(model(chooses("coder"), WRITE, again), settings_for(database)) as client:
        session = client.session()
        await session.user("Write a.py twice")
        await session.decide("approve", remember={"scope": "turn"})
        await session.result("done")
        assert [each[:4] for each in await became(session)] == [
            ("call_1", "answered", "approve", "hitl_decision"),
            ("call_2", "sent", "approve", "grant"),
        ]


async def test_calls_that_never_leave_the_service_are_known_by_the_history_alone(database: str) -> None:
    lines = (
        calls("calculator", call_id="sum", expr="1 / 0"),
        calls("write_file", call_id="denied", path="a.py", content="x"),
        asks(("read_file", "unreadable", "[1]")),
        calls("attempt_completion", call_id="end", result="Done."),
    )
    async with service(model(chooses("architect"), *lines), settings_for(database)) as client:
        session = client.session()
        await session.user("Go")
        found = await listed(session)
    nothing = dict.fromkeys(["rule", "proposed_at", *DECIDED[1:], "decided_at", "sent_at", "answered_at"])
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


async def test_a_tool_that_never_answers_times_out_and_its_model_is_told(database: str) -> None:
    held = Held(says("It did not answer."))
    settings = settings_for(database, tool_timeout_seconds=0.02)
    llm = model(chooses("coder"), READ, held)
    async with service(llm, settings) as client:
        session = client.session()
        assert (await session.user("Read a.py"))[-1]["type"] == "tool_call"
        await held.asked.wait()
        held.release.set()
        await client.http.get("/sessions/s-1/stream")
        (late,) = await session.result("x = 1")
        history = await session.history()
        assert await became(session) == [("call_1", "answered", None, None, "psa")]
    assert (late["metadata"]["code"], late["error"]) == (
        "call_not_open",
        "The call 'call_1' does not wait for an answer. No call is open.",
    )
    told = "Error: timed out: no result came within 0.02 seconds; whether the call ran is not known"
    assert history[2] == {"role": "tool", "content": told, "tool_call_id": "call_1", "name": "read_file"}
    assert history[3] == {"role": "assistant", "content": "It did not answer."}


async def test_what_a_deleted_session_left_open_keeps_nobody_busy(database: str) -> None:
    held = Held(says("It did not answer."))
    async with service(model(chooses("coder"), READ), settings_for(database)) as client:
        await client.session("s-1").user("Read a.py")
        await client.http.delete("/sessions/s-1")
    settings = settings_for(database, tool_timeout_seconds=0.02)
    async with service(model(chooses("coder"), READ, held), settings) as client:
        await client.session("s-2").user("Read a.py")
        await held.asked.wait()
        held.release.set()
        await client.http.get("/sessions/s-2/stream")
        assert (await client.session("s-2").history())[-1] == {"role": "assistant", "content": "It did not answer."}


async def test_a_late_approval_is_no_tool_that_timed_out(database: str) -> None:
    settings = settings_for(database, tool_timeout_seconds=0.01)
    async with service(model(chooses("coder"), WRITE, says("No.")), settings) as client:
        session = client.session()
        await session.user("Write a.py")
        for _ in range(20):
            assert await became(session) == [("call_1", "asked", None, None, "p")]
        assert await session.decide("reject") == [text("No.")]
