"""Calls that passed unasked can be seen: counted by rule, and listed in the audit if the operator wants it."""

import pytest

from tests.support.scripted import call_tool, choose_agent, make_model, say_text
from tests.support.service import settings_for, start_service


@pytest.mark.parametrize("is_on", [True, False])
async def test_passes_are_counted_and_listed(database: str, is_on: bool) -> None:
    llm = make_model(
        choose_agent("coder"),
        call_tool("execute_command", command="ls src"),
        call_tool("write_file", path="a.py", content="x"),
        say_text("Done."),
    )
    async with start_service(llm, settings_for(database, audit_reads=is_on)) as client:
        session = client.open_session()
        listed = await session.send_text("Look, then write")
        asked = await session.send_result("a.py", listed[-1]["call_id"])
        await session.decide("reject", asked[-1]["call_id"])
        report = await session.get("/sessions/{id}/audit")
        policy = (await client.http.get("/policy")).json()
    assert policy["unasked"] == {"command.read_only": 1}
    assert [entry["tool_name"] for entry in report["entries"]] == ["write_file"]
    if not is_on:
        assert "passes" not in report
        return
    (passed,) = report["passes"]
    assert passed.pop("sent_at")
    assert passed == {
        "call_id": listed[-1]["call_id"],
        "tool_name": "execute_command",
        "agent": "coder",
        "arguments": {"command": "ls src"},
        "rule": "command.read_only",
        "status": "answered",
    }
