"""Approvals can be remembered, expire in time, and are never requested twice; the audit records all of that."""

import asyncio
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from server import create_app
from sessions.store.audit import first_broken_entry
from tests.support.clock import advance_loop_clock, advance_timestamps
from tests.support.eventually import eventually
from tests.support.process import start_process
from tests.support.scripted import DeferredReply, call_tool, call_tools, choose_agent, make_model, say_text
from tests.support.service import (
    SessionClient,
    approval_chunk,
    provide_model,
    settings_for,
    start_service,
    text_chunk,
    tool_call_chunk,
    write_approval_chunk,
)
from tests.support.storage import execute_script
from tests.support.views import wait_for_queue


def call_write_file(path: str, call_id: str, content: str = "x") -> Any:
    return call_tool("write_file", call_id=call_id, path=path, content=content)


def auto_approved_chunk(path: str, call_id: str, rule: str) -> dict[str, Any]:
    reason = "The user allowed calls like this one."
    metadata = {"rule": rule, "reason": reason, "passed_by": "grant"}
    return {**tool_call_chunk("write_file", call_id, path=path, content="x"), "metadata": metadata}


async def fetch_grants(session: SessionClient) -> dict[str, Any]:
    found: dict[str, Any] = await session.get("/sessions/{id}/grants")
    return found


async def test_remembered_approval_covers_similar_calls_and_is_audited(database: str) -> None:
    llm = make_model(
        choose_agent("coder"),
        call_write_file("docs/a.md", "c1"),
        call_write_file("docs/b/c.md", "c2"),
        call_write_file("src/a.py", "c3"),
    )
    async with start_service(llm, settings_for(database)) as client:
        session = client.open_session()
        await session.send_text("Write")
        remember = {"scope": "session", "pattern": "docs/**"}
        await session.decide("approve", "c1", remember=remember)
        (granted,) = (await fetch_grants(session))["grants"]
        rule = f"grant.{granted['id']}"
        assert await session.send_result("done", "c1") == [auto_approved_chunk("docs/b/c.md", "c2", rule)]
        assert (await session.send_result("done", "c2"))[-1] == write_approval_chunk("src/a.py", "x", "c3")
        audited = await session.get("/sessions/{id}/audit")
    made = (granted["agent"], granted["tool_name"], granted["pattern"], granted["scope"], granted["call_id"])
    assert made == ("coder", "write_file", "docs/**", "session", "c1")
    told = [(e["call_id"], e["decision"], e["decided_by"], e["rule"]) for e in audited["entries"]]
    assert told == [("c1", "approve", "hitl_decision", "write.file"), ("c2", "approve", "grant", rule)]
    content = hashlib.sha256(json.dumps({"error": None, "result": "done"}, sort_keys=True).encode()).hexdigest()
    assert [(r["seq"], r["result_hash"]) for r in audited["results"]] == [(1, content), (2, content)]
    assert first_broken_entry("s-1", audited["entries"], audited["results"]) is None
    changed = [audited["results"][0], {**audited["results"][1], "result_hash": "0" * 64}]
    assert first_broken_entry("s-1", audited["entries"], changed) == 2


async def test_narrowest_pattern_is_proposed_and_is_the_default(tmp_path: Path) -> None:
    run = ("execute_command", "make test")
    lines = [call_tool(run[0], call_id=f"c{n}", command=run[1]) for n in range(2)]
    llm = make_model(
        choose_agent("coder"), *lines, call_tool(run[0], call_id="c2", command="make test; make"), say_text("Done.")
    )
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        (_, asked) = await session.send_text("Test")
        assert asked["metadata"]["remember"] == {"pattern": "make test"}
        proposals = (await fetch_grants(session))["proposals"]
        assert proposals == [{"call_id": "c0", "tool_name": "execute_command", "pattern": "make test"}]
        await session.decide("approve", "c0", remember={"scope": "session"})
        assert (await session.send_result("ok", "c0"))[-1]["requires_approval"] is False
        assert (await session.send_result("ok", "c1"))[-1]["requires_approval"] is True


async def test_grant_expires_after_its_uses_and_at_the_end_of_its_turn(tmp_path: Path) -> None:
    lines = [call_write_file("a.py", f"c{n}", f"x{n}") for n in range(3)]
    again = (call_write_file("a.py", "c3"), say_text("Done."), call_write_file("a.py", "c4"))
    async with start_service(make_model(choose_agent("coder"), *lines, *again), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write")
        await session.decide("approve", "c0", remember={"scope": "session", "uses": 1})
        assert (await session.send_result("ok", "c0"))[-1]["metadata"]["passed_by"] == "grant"
        assert (await session.send_result("ok", "c1"))[-1] == write_approval_chunk("a.py", "x2", "c2")
        await session.decide("approve", "c2", remember={"scope": "turn"})
        assert (await session.send_result("ok", "c2"))[-1]["metadata"]["passed_by"] == "grant"
        assert await session.send_result("ok", "c3") == [text_chunk("Done.")]
        assert await session.send_text("Again") == [write_approval_chunk("a.py", "x", "c4")]
        assert (await fetch_grants(session))["grants"] == []


async def test_parallel_calls_need_one_grant_use_each(tmp_path: Path) -> None:
    one, two = (json.dumps({"path": "a.py", "content": content}) for content in "yz")
    both = call_tools(("write_file", "c1", one), ("write_file", "c2", two))
    async with start_service(
        make_model(choose_agent("coder"), call_write_file("a.py", "c0"), both), settings_for(tmp_path)
    ) as client:
        session = client.open_session(parallel_tools=True)
        await session.send_text("Write")
        await session.decide("approve", "c0", remember={"scope": "session", "uses": 1})
        first, second = await session.send_result("ok", "c0")
    assert (first["requires_approval"], second["requires_approval"]) == (False, True)


async def test_grant_ends_at_its_expiry_or_when_it_is_revoked(tmp_path: Path) -> None:
    lines = [call_write_file("a.py", f"c{n}", f"x{n}") for n in range(3)]
    async with start_service(make_model(choose_agent("coder"), *lines), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write")
        await session.decide("approve", "c0", remember={"scope": "session", "minutes": 1e-9})
        assert (await session.send_result("ok", "c0"))[-1] == write_approval_chunk("a.py", "x1", "c1")
        await session.decide("approve", "c1", remember={"scope": "session"})
        (granted,) = (await fetch_grants(session))["grants"]
        path = f"/sessions/s-1/grants/{granted['id']}"
        assert (await client.http.delete(path)).json() == {"session_id": "s-1", "revoked": 1}
        unknown = await client.http.delete(path)
        assert (unknown.status_code, unknown.json()) == (404, {"error": f"Session s-1 has no grant {granted['id']}"})
        assert (await client.http.delete("/sessions/s-1/grants/%20")).json()["error"].endswith("no grant of this name")
        assert (await client.http.delete("/sessions/s-1/grants")).json() == {"session_id": "s-1", "revoked": 0}
        assert (await client.http.delete("/sessions/none/grants")).status_code == 404
        assert (await session.send_result("ok", "c1"))[-1] == write_approval_chunk("a.py", "x2", "c2")


async def test_grant_never_overrides_a_denial_and_ends_with_its_session(tmp_path: Path) -> None:
    llm = make_model(
        choose_agent("coder"),
        call_write_file("a.py", "c0"),
        call_write_file("../a.py", "c1"),
        call_write_file("a.py", "c2"),
        say_text("Done."),
    )
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write")
        await session.decide("approve", "c0", remember={"scope": "session", "pattern": "**"})
        refused, through = await session.send_result("ok", "c0")
        assert (refused["metadata"]["rule"], through["metadata"]["passed_by"]) == ("path.outside", "grant")
        await client.http.delete("/sessions/s-1")
        assert (await client.http.get("/sessions/s-1/grants")).status_code == 404
        llm.lines = iter([choose_agent("coder"), call_write_file("a.py", "c3")])
        assert (await session.send_text("Write"))[-1] == write_approval_chunk("a.py", "x", "c3")


@pytest.mark.parametrize("passes_by", ["grant", "policy"])
async def test_call_of_a_deleted_session_approves_nothing_in_its_successor(tmp_path: Path, passes_by: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("rules:\n  - {id: free, tools: [write_file], decision: allow, reason: It is free.}\n")
    changes = {"policy_file": str(file)} if passes_by == "policy" else {}
    lines = [choose_agent("coder"), call_write_file("a.py", "c0"), call_write_file("a.py", "c1")]
    async with start_service(make_model(*lines, *lines), settings_for(tmp_path, **changes)) as client:
        session = client.open_session()
        for _ in range(2):
            await session.send_text("Write")
            if passes_by == "grant":
                await session.decide("approve", "c0", remember={"scope": "session", "uses": 1})
            assert (await session.send_result("ok", "c0"))[-1]["metadata"]["passed_by"] == passes_by
            told = await session.get("/sessions/{id}/audit")
            await client.http.delete("/sessions/s-1")
    assert [entry["call_id"] for entry in told["entries"]] == ["c0", "c1", "c0", "c1"]
    assert [result["seq"] for result in told["results"]] == [1, 3]


async def test_grant_of_an_approval_ignores_modified_arguments(tmp_path: Path) -> None:
    async with start_service(
        make_model(choose_agent("coder"), call_write_file("a.py", "c0")), settings_for(tmp_path)
    ) as client:
        session = client.open_session()
        await session.send_text("Write")
        await session.decide("approve", "c0", modified_arguments={"path": "b.py"}, remember={"scope": "session"})
        assert (await fetch_grants(session))["grants"][0]["pattern"] == "a.py"


@pytest.mark.parametrize(
    ("decision", "remember", "code"),
    [
        ("approve", {"scope": "session", "pattern": "docs/**"}, "invalid_decision"),
        ("approve", {"scope": "world"}, "invalid_decision"),
        ("approve", {"pattern": "a.py"}, "invalid_decision"),
        ("approve", {"scope": "turn", "uses": 0}, "invalid_decision"),
        ("approve", {"scope": "turn", "minutes": -1}, "invalid_decision"),
        ("approve", "session", "invalid_decision"),
        ("reject", {"scope": "turn"}, "invalid_decision"),
    ],
)
async def test_invalid_remember_makes_a_decision_invalid(
    tmp_path: Path, decision: str, remember: Any, code: str
) -> None:
    async with start_service(
        make_model(choose_agent("coder"), call_write_file("a.py", "c0")), settings_for(tmp_path)
    ) as client:
        session = client.open_session()
        await session.send_text("Write")
        (error,) = await session.decide(decision, "c0", remember=remember)
        assert error["metadata"]["code"] == code
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 1
        assert ((await fetch_grants(session))["count"], (await session.get("/sessions/{id}/audit"))["count"]) == (0, 0)


async def test_debug_agent_needs_approval_for_each_command(tmp_path: Path) -> None:
    lines = [call_tool("execute_command", call_id=f"c{n}", command="make") for n in range(2)]
    async with start_service(make_model(choose_agent("debug"), *lines), settings_for(tmp_path)) as client:
        session = client.open_session()
        (_, asked) = await session.send_text("Why?")
        assert "remember" not in asked["metadata"]
        (error,) = await session.decide("approve", "c0", remember={"scope": "session"})
        assert error["metadata"]["code"] == "invalid_decision"
        await session.decide("approve", "c0")
        assert (await session.send_result("ok", "c0"))[-1]["requires_approval"] is True


@pytest.mark.parametrize("shipped", [False, True])
async def test_rejected_call_is_denied_when_repeated_in_the_same_turn(tmp_path: Path, shipped: bool) -> None:
    again = (say_text("Well."), call_write_file("a.py", "c2"))
    llm = make_model(choose_agent("coder"), call_write_file("a.py", "c0"), call_write_file("a.py", "c1"), *again)
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write")
        if shipped:
            refused, answer = await session.send_result(None, "c0", error="User rejected: not there")
        else:
            refused, answer = await session.decide("reject", "c0", feedback="not there")
        assert answer == text_chunk("Well.")
        assert (refused["metadata"]["rule"], refused["metadata"]["call_id"]) == ("user.rejected", "c1")
        assert "not there" in refused["error"]
        assert (await session.get("/sessions/{id}/audit"))["count"] == 1
        assert await session.send_text("Do it now") == [write_approval_chunk("a.py", "x", "c2")]


async def test_tool_output_is_never_read_as_a_rejection(tmp_path: Path) -> None:
    lines = [call_tool("execute_command", call_id=f"c{n}", command="make") for n in range(2)]
    async with start_service(make_model(choose_agent("coder"), *lines), settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Make")
        await session.decide("approve", "c0")
        assert (await session.send_result("The user rejected this call.", "c0"))[-1]["requires_approval"] is True


async def test_expired_approval_is_not_a_rejection(tmp_path: Path) -> None:
    llm = make_model(choose_agent("coder"), call_write_file("a.py", "c0"), say_text("I see."))
    async with start_service(llm, settings_for(tmp_path, approval_timeout_seconds=0.05)) as client:
        session = client.open_session()
        await session.send_text("Write")

        async def is_closed() -> bool:
            return not (await session.get("/sessions/{id}/pending-approvals"))["count"]

        await eventually(is_closed, "the approval is closed")
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        (late,) = await session.decide("approve", "c0")
        assert await session.send_text("Well?") == [text_chunk("I see.")]
    assert (entry["decision"], entry["decided_by"], late["metadata"]["code"]) == ("expire", "system", "call_not_open")
    told = [str(message.content) for message in llm.prompts[-1] if message.type == "tool"]
    assert told == ["expired: nobody decided within 0.05 seconds; the call did not run, nobody rejected it"]


async def test_late_decision_gets_call_not_open(tmp_path: Path) -> None:
    llm = make_model(choose_agent("coder"), call_write_file("a.py", "c0"))
    async with start_service(llm, settings_for(tmp_path)) as client:
        await client.open_session().send_text("Write")
    async with start_service(llm, settings_for(tmp_path, approval_timeout_seconds=1e-6)) as client:
        (late,) = await client.open_session().decide("approve", "c0")
        (entry,) = (await client.open_session().get("/sessions/{id}/audit"))["entries"]
    assert late["metadata"]["code"] == "call_not_open"
    assert entry["decision"] == "expire"


async def test_timely_decision_does_not_expire_during_its_run(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = DeferredReply(say_text("I see."))
    llm = make_model(choose_agent("coder"), call_write_file("a.py", "c0"), held, say_text("Bye."))
    settings = settings_for(database, approval_timeout_seconds=60)
    app = create_app(settings, provide_model(llm))
    async with start_service(None, settings, app) as client:
        session = client.open_session()
        await session.send_text("Write")
        rejecting = asyncio.create_task(session.decide("reject", "c0"))
        await held.requested.wait()
        advance_timestamps(monkeypatch, 61)
        await app.state.deps.runs.approval_timeouts.expire_all()
        again = asyncio.create_task(session.decide("reject", "c0"))
        assert (await session.send_text("No", busy="reject"))[-1]["metadata"]["code"] == "session_busy"
        next_one = asyncio.create_task(session.send_text("Well?"))
        await wait_for_queue(session, 1)
        held.release.set()
        assert await rejecting == await again == [text_chunk("I see.")]
        assert await next_one == [text_chunk("Bye.")]


async def test_result_is_kept_when_a_parallel_approval_expires(tmp_path: Path) -> None:
    both = call_tools(
        ("write_file", "c0", '{"path": "a", "content": ""}'), ("write_file", "c1", '{"path": "b", "content": ""}')
    )
    llm = make_model(choose_agent("coder"), both, say_text("I see."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        await client.open_session(parallel_tools=True).send_text("Write")
        await client.open_session(parallel_tools=True).decide("approve", "c0")
    async with start_service(llm, settings_for(tmp_path, approval_timeout_seconds=1e-6)) as client:
        session = client.open_session(parallel_tools=True)
        (late,) = await session.decide("approve", "c1")
        await session.send_result("ok", "c0")
        assert (await session.send_text("Well?"))[-1] == text_chunk("I see.")
        told = await session.get("/sessions/{id}/audit")
    assert late["metadata"]["code"] == "call_not_open"
    assert [(e["call_id"], e["decision"]) for e in told["entries"]] == [("c0", "approve"), ("c1", "expire")]
    assert [result["seq"] for result in told["results"]] == [1]


async def test_call_that_the_policy_now_denies_cannot_be_approved(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    llm = make_model(choose_agent("coder"), call_write_file("a.py", "c0"), say_text("Well."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        await client.open_session().send_text("Write")
    file.write_text("default: deny\nrules: []\n")
    async with start_service(llm, settings_for(tmp_path, policy_file=str(file))) as client:
        session = client.open_session()
        (error,) = await session.decide("approve", "c0")
        assert error["metadata"]["code"] == "invalid_decision"
        assert await session.decide("reject", "c0") == [text_chunk("Well.")]


async def test_call_is_not_sent_when_the_audit_cannot_be_written(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/test.db"
    llm = make_model(choose_agent("coder"), call_write_file("a.py", "c0"), call_write_file("a.py", "c1"))
    async with start_service(llm, settings_for(tmp_path, log_level="CRITICAL")) as client:
        session = client.open_session()
        await session.send_text("Write")
        execute_script(database, "alter table audit_log rename to gone")
        body = {"session_id": "s-1", "message": {"type": "hitl_decision", "call_id": "c0", "decision": "approve"}}
        refused = await client.http.post("/agent/message/stream", json=body)
        assert (refused.status_code, "tool_call" in refused.text) == (503, False)
        execute_script(database, "alter table gone rename to audit_log")
        await session.decide("approve", "c0", remember={"scope": "session"})
        execute_script(database, "alter table audit_log rename to gone")
        response = await client.http.post(
            "/agent/message/stream",
            json={"session_id": "s-1", "message": {"type": "tool_result", "call_id": "c0", "result": "ok"}},
        )
        assert "tool_call" not in response.text
        execute_script(database, "alter table gone rename to audit_log")


async def test_call_allowed_by_the_policy_is_audited_as_such(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("rules:\n  - {id: free, tools: [write_file, read_file], decision: allow, reason: It is free.}\n")
    llm = make_model(
        choose_agent("coder"), call_write_file("a.py", "c0"), call_tool("read_file", call_id="c1", path="a.py")
    )
    async with start_service(llm, settings_for(tmp_path, policy_file=str(file))) as client:
        session = client.open_session()
        (_, sent) = await session.send_text("Write")
        assert sent["metadata"] == {"rule": "free", "reason": "It is free.", "passed_by": "policy"}
        assert await session.send_result("ok", "c0") == [tool_call_chunk("read_file", "c1", path="a.py")]
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        shown = await session.get("/policy")
    assert (entry["call_id"], entry["decided_by"], entry["rule"]) == ("c0", "policy", "free")
    assert shown["rules"][0]["id"] == "free"
    assert shown["matrix"]["coder"]["write_file"][0]["decision"] == "allow"


@pytest.mark.parametrize("shipped", [False, True])
async def test_policy_can_require_approval_for_a_local_tool(tmp_path: Path, shipped: bool) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("rules:\n  - {id: slow, tools: [echo], decision: ask, reason: Slowly.}\n")
    llm = make_model(choose_agent("coder"), call_tools(("echo", "call_1", '{"text": "hi"}')), say_text("Done."))
    async with start_service(llm, settings_for(tmp_path, policy_file=str(file))) as client:
        session = client.open_session()
        (_, asked) = await session.send_text("Say hi")
        assert (asked["requires_approval"], asked["metadata"]) == (True, {"rule": "slow", "reason": "Slowly."})
        answer = await (session.send_result("the IDE's own") if shipped else session.decide("approve"))
        assert answer == [text_chunk("Done.")]
        assert (await session.fetch_history())[2]["content"] == "hi"


async def test_control_characters_are_escaped_in_the_audit(tmp_path: Path) -> None:
    command = "printf '\x1b[2J\u202e'\n\tmake"
    llm = make_model(choose_agent("coder"), call_tool("execute_command", command=command), say_text("Done."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Go")
        await session.decide("reject", feedback="no\x07")
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
    assert entry["original_arguments"] == {"command": "printf '\\x1b[2J\\u202e'\n\tmake"}
    assert entry["feedback"] == "no\\x07"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_turn_tool_calls": 2}, "The turn was stopped at its limit of 2 tool calls. Send a message to go on."),
        ({"max_turn_model_calls": 2}, "The turn was stopped after 2 model calls. Send a message to go on."),
    ],
)
async def test_a_turn_ends_at_its_limits(tmp_path: Path, limits: dict[str, int], said: str) -> None:
    reads = [call_tool("read_file", call_id=f"c{n}", path="a.py") for n in range(3)]
    llm = make_model(choose_agent("ask"), *reads[: 2 + ("max_turn_tool_calls" in limits)], say_text("Fine."))
    async with start_service(llm, settings_for(tmp_path, **limits)) as client:
        session = client.open_session()
        await session.send_text("Read")
        await session.send_result("x", "c0")
        (error,) = await session.send_result("x", "c1")
        assert (error["error"], error["metadata"]["code"]) == (said, "limit_reached")
        assert await session.send_text("Go on") == [text_chunk("Fine.")]


async def test_run_ends_at_its_time_limit(tmp_path: Path) -> None:
    never = DeferredReply(say_text("Never."))
    llm = make_model(choose_agent("ask"), never, say_text("Fine."))
    async with start_service(llm, settings_for(tmp_path, max_run_minutes=0.5)) as client:
        session = client.open_session()
        asking = asyncio.create_task(session.send_text("Hello"))
        await never.requested.wait()
        await advance_loop_clock(31)
        error = (await asking)[-1]
        assert error["metadata"]["code"] == "limit_reached"
        assert error["error"] == "The run was stopped after 0.5 minutes. Send a message to go on."
        assert await session.send_text("Go on") == [text_chunk("Fine.")]


async def test_policy_is_reloaded_on_sighup(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("default: deny\nrules: []\n")
    question = {"agent": "coder", "tool": "read_file", "arguments": {"path": "a"}}
    async with start_process(f"sqlite:///{tmp_path}/test.db", policy_file=str(file)) as process:
        for default in ("ask", "nonsense", "allow"):
            before = (await process.http.post("/policy/explain", json=question)).json()["decision"]
            file.write_text(f"default: {default}\nrules: []\n")
            os.kill(process.process.pid, signal.SIGHUP)
            expected = before if default == "nonsense" else default

            async def decides_as_expected(expected: str = expected) -> bool:
                answer = await process.http.post("/policy/explain", json=question)
                return bool(answer.json()["decision"] == expected)

            await eventually(decides_as_expected, f"the policy is reloaded; its decision is {expected}")


async def test_service_with_an_invalid_policy_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("rules:\n  - id: x\n    decision: maybe\n    reason: r\n")
    with pytest.raises(RuntimeError) as refused:
        async with start_process(f"sqlite:///{tmp_path}/test.db", policy_file=str(file)):
            pass
    assert f"{file}:3: rules.0.decision: Input should be 'allow', 'ask' or 'deny'" in str(refused.value)
    assert "Traceback" not in str(refused.value)


async def test_edit_is_checked_again_and_the_grant_covers_the_edited_call(tmp_path: Path) -> None:
    llm = make_model(choose_agent("architect"), call_write_file("a.md", "c0"), call_write_file("b.md", "c1"))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Write")
        (refused,) = await session.decide("edit", "c0", modified_arguments={"path": "a.py"}, remember={"scope": "turn"})
        assert refused["metadata"]["code"] == "edit_refused"
        await session.decide("edit", "c0", modified_arguments={"path": "b.md"}, remember={"scope": "turn"})
        assert (await fetch_grants(session))["grants"][0]["pattern"] == "b.md"
        assert (await session.send_result("ok", "c0"))[-1]["metadata"]["passed_by"] == "grant"


async def test_warning_is_part_of_the_approval_request(tmp_path: Path) -> None:
    llm = make_model(choose_agent("coder"), call_write_file(".github/workflows/ci.yml", "c0"))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        (_, asked) = await session.send_text("Write")
        (pending,) = (await session.get("/sessions/{id}/pending-approvals"))["pending_approvals"]
    warning = "It is run by continuous integration, with its rights and its secrets."
    reason = f"Writing a file needs the user's approval. {warning}"
    expected = approval_chunk("write_file", "write.file", reason, "c0", path=".github/workflows/ci.yml", content="x")
    assert asked == {**expected, "metadata": {**expected["metadata"], "warning": warning}}
    assert pending["reason"] == reason
