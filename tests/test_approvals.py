"""Approvals people can live with: remembered, not asked twice, running out; and what the audit says of all that."""

import asyncio
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy import text as sql

from sessions.store.audit import first_broken_entry
from tests.process import serving
from tests.scripted import Held, asks, calls, chooses, model, says
from tests.service import Session, approval, service, settings_for, text, tool_call, write_approval

pytestmark = pytest.mark.anyio


def write(path: str, call_id: str, content: str = "x") -> Any:
    return calls("write_file", call_id=call_id, path=path, content=content)


def passed(path: str, call_id: str, rule: str) -> dict[str, Any]:
    reason = "The user allowed calls like this one."
    metadata = {"rule": rule, "reason": reason, "passed_by": "grant"}
    return {**tool_call("write_file", call_id, path=path, content="x"), "metadata": metadata}


async def grants(session: Session) -> dict[str, Any]:
    found: dict[str, Any] = await session.get("/sessions/{id}/grants")
    return found


async def test_a_remembered_approval_lets_calls_like_it_pass_and_the_audit_names_it(database: str) -> None:
    llm = model(chooses("coder"), write("docs/a.md", "c1"), write("docs/b/c.md", "c2"), write("src/a.py", "c3"))
    async with service(llm, settings_for(database)) as client:
        session = client.session()
        await session.user("Write")
        remember = {"scope": "session", "pattern": "docs/**"}
        await session.decide("approve", "c1", remember=remember)
        (granted,) = (await grants(session))["grants"]
        rule = f"grant.{granted['id']}"
        assert await session.result("done", "c1") == [passed("docs/b/c.md", "c2", rule)]
        assert (await session.result("done", "c2"))[-1] == write_approval("src/a.py", "x", "c3")
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


async def test_the_server_proposes_the_narrowest_pattern_and_takes_it_when_none_is_named(tmp_path: Path) -> None:
    run = ("execute_command", "make test")
    lines = [calls(run[0], call_id=f"c{n}", command=run[1]) for n in range(2)]
    llm = model(chooses("coder"), *lines, calls(run[0], call_id="c2", command="make test; make"), says("Done."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        (_, asked) = await session.user("Test")
        assert asked["metadata"]["remember"] == {"pattern": "make test"}
        proposals = (await grants(session))["proposals"]
        assert proposals == [{"call_id": "c0", "tool_name": "execute_command", "pattern": "make test"}]
        await session.decide("approve", "c0", remember={"scope": "session"})
        assert (await session.result("ok", "c0"))[-1]["requires_approval"] is False
        assert (await session.result("ok", "c1"))[-1]["requires_approval"] is True


async def test_a_grant_runs_out_by_its_uses_and_with_its_turn(tmp_path: Path) -> None:
    lines = [write("a.py", f"c{n}", f"x{n}") for n in range(3)]
    again = (write("a.py", "c3"), says("Done."), write("a.py", "c4"))
    async with service(model(chooses("coder"), *lines, *again), settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write")
        await session.decide("approve", "c0", remember={"scope": "session", "uses": 1})
        assert (await session.result("ok", "c0"))[-1]["metadata"]["passed_by"] == "grant"
        assert (await session.result("ok", "c1"))[-1] == write_approval("a.py", "x2", "c2")
        await session.decide("approve", "c2", remember={"scope": "turn"})
        assert (await session.result("ok", "c2"))[-1]["metadata"]["passed_by"] == "grant"
        assert await session.result("ok", "c3") == [text("Done.")]
        assert await session.user("Again") == [write_approval("a.py", "x", "c4")]
        assert (await grants(session))["grants"] == []


async def test_two_calls_of_one_message_do_not_share_one_use(tmp_path: Path) -> None:
    one, two = (json.dumps({"path": "a.py", "content": content}) for content in "yz")
    both = asks(("write_file", "c1", one), ("write_file", "c2", two))
    async with service(model(chooses("coder"), write("a.py", "c0"), both), settings_for(tmp_path)) as client:
        session = client.session(parallel_tools=True)
        await session.user("Write")
        await session.decide("approve", "c0", remember={"scope": "session", "uses": 1})
        first, second = await session.result("ok", "c0")
    assert (first["requires_approval"], second["requires_approval"]) == (False, True)


async def test_a_grant_ends_with_its_time_or_when_it_is_taken_back(tmp_path: Path) -> None:
    lines = [write("a.py", f"c{n}", f"x{n}") for n in range(3)]
    async with service(model(chooses("coder"), *lines), settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write")
        await session.decide("approve", "c0", remember={"scope": "session", "minutes": 1e-9})
        assert (await session.result("ok", "c0"))[-1] == write_approval("a.py", "x1", "c1")
        await session.decide("approve", "c1", remember={"scope": "session"})
        (granted,) = (await grants(session))["grants"]
        path = f"/sessions/s-1/grants/{granted['id']}"
        assert (await client.http.delete(path)).json() == {"session_id": "s-1", "revoked": 1}
        unknown = await client.http.delete(path)
        assert (unknown.status_code, unknown.json()) == (404, {"error": f"Session s-1 has no grant {granted['id']}"})
        assert (await client.http.delete("/sessions/s-1/grants/%20")).json()["error"].endswith("no grant of this name")
        assert (await client.http.delete("/sessions/s-1/grants")).json() == {"session_id": "s-1", "revoked": 0}
        assert (await client.http.delete("/sessions/none/grants")).status_code == 404
        assert (await session.result("ok", "c1"))[-1] == write_approval("a.py", "x2", "c2")


async def test_a_grant_never_overrides_a_denial_and_is_gone_with_its_session(tmp_path: Path) -> None:
    llm = model(chooses("coder"), write("a.py", "c0"), write("../a.py", "c1"), write("a.py", "c2"), says("Done."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write")
        await session.decide("approve", "c0", remember={"scope": "session", "pattern": "**"})
        refused, through = await session.result("ok", "c0")
        assert (refused["metadata"]["rule"], through["metadata"]["passed_by"]) == ("path.outside", "grant")
        await client.http.delete("/sessions/s-1")
        assert (await client.http.get("/sessions/s-1/grants")).status_code == 404
        llm.lines = iter([chooses("coder"), write("a.py", "c3")])
        assert (await session.user("Write"))[-1] == write_approval("a.py", "x", "c3")


@pytest.mark.parametrize("passes_by", ["grant", "policy"])
async def test_a_call_of_a_deleted_session_does_not_speak_for_one_of_its_name(tmp_path: Path, passes_by: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("rules:\n  - {id: free, tools: [write_file], decision: allow, reason: It is free.}\n")
    changes = {"policy_file": str(file)} if passes_by == "policy" else {}
    lines = [chooses("coder"), write("a.py", "c0"), write("a.py", "c1")]
    async with service(model(*lines, *lines), settings_for(tmp_path, **changes)) as client:
        session = client.session()
        for _ in range(2):
            await session.user("Write")
            if passes_by == "grant":
                await session.decide("approve", "c0", remember={"scope": "session", "uses": 1})
            assert (await session.result("ok", "c0"))[-1]["metadata"]["passed_by"] == passes_by
            told = await session.get("/sessions/{id}/audit")
            await client.http.delete("/sessions/s-1")
    assert [entry["call_id"] for entry in told["entries"]] == ["c0", "c1", "c0", "c1"]
    assert [result["seq"] for result in told["results"]] == [1, 3]


async def test_an_approval_grants_what_it_approves_and_nothing_else(tmp_path: Path) -> None:
    async with service(model(chooses("coder"), write("a.py", "c0")), settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write")
        await session.decide("approve", "c0", modified_arguments={"path": "b.py"}, remember={"scope": "session"})
        assert (await grants(session))["grants"][0]["pattern"] == "a.py"


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
async def test_what_cannot_be_remembered_is_no_decision(
    tmp_path: Path, decision: str, remember: Any, code: str
) -> None:
    async with service(model(chooses("coder"), write("a.py", "c0")), settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write")
        (error,) = await session.decide(decision, "c0", remember=remember)
        assert error["metadata"]["code"] == code
        assert (await session.get("/sessions/{id}/pending-approvals"))["count"] == 1
        assert ((await grants(session))["count"], (await session.get("/sessions/{id}/audit"))["count"]) == (0, 0)


async def test_debug_is_asked_for_each_of_its_commands(tmp_path: Path) -> None:
    lines = [calls("execute_command", call_id=f"c{n}", command="make") for n in range(2)]
    async with service(model(chooses("debug"), *lines), settings_for(tmp_path)) as client:
        session = client.session()
        (_, asked) = await session.user("Why?")
        assert "remember" not in asked["metadata"]
        (error,) = await session.decide("approve", "c0", remember={"scope": "session"})
        assert error["metadata"]["code"] == "invalid_decision"
        await session.decide("approve", "c0")
        assert (await session.result("ok", "c0"))[-1]["requires_approval"] is True


@pytest.mark.parametrize("shipped", [False, True])
async def test_what_the_user_rejected_is_not_asked_twice_in_a_turn(tmp_path: Path, shipped: bool) -> None:
    again = (says("Well."), write("a.py", "c2"))
    llm = model(chooses("coder"), write("a.py", "c0"), write("a.py", "c1"), *again)
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write")
        if shipped:
            refused, answer = await session.result(None, "c0", error="User rejected: not there")
        else:
            refused, answer = await session.decide("reject", "c0", feedback="not there")
        assert answer == text("Well.")
        assert (refused["metadata"]["rule"], refused["metadata"]["call_id"]) == ("user.rejected", "c1")
        assert "not there" in refused["error"]
        assert (await session.get("/sessions/{id}/audit"))["count"] == 1
        assert await session.user("Do it now") == [write_approval("a.py", "x", "c2")]


async def test_no_text_of_a_tool_is_taken_for_a_rejection(tmp_path: Path) -> None:
    lines = [calls("execute_command", call_id=f"c{n}", command="make") for n in range(2)]
    async with service(model(chooses("coder"), *lines), settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Make")
        await session.decide("approve", "c0")
        assert (await session.result("The user rejected this call.", "c0"))[-1]["requires_approval"] is True


async def test_an_approval_that_runs_out_is_not_a_rejection(tmp_path: Path) -> None:
    llm = model(chooses("coder"), write("a.py", "c0"), says("I see."))
    async with service(llm, settings_for(tmp_path, approval_timeout_seconds=0.05)) as client:
        session = client.session()
        await session.user("Write")
        while (await session.get("/sessions/{id}/pending-approvals"))["count"]:
            continue
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        (late,) = await session.decide("approve", "c0")
        assert await session.user("Well?") == [text("I see.")]
    assert (entry["decision"], entry["decided_by"], late["metadata"]["code"]) == ("expire", "system", "call_not_open")
    told = [str(message.content) for message in llm.heard[-1] if message.type == "tool"]
    assert told == ["expired: nobody decided within 0.05 seconds; the call did not run, nobody rejected it"]


async def test_a_decision_that_comes_too_late_is_told_so(tmp_path: Path) -> None:
    llm = model(chooses("coder"), write("a.py", "c0"))
    async with service(llm, settings_for(tmp_path)) as client:
        await client.session().user("Write")
    async with service(llm, settings_for(tmp_path, approval_timeout_seconds=1e-6)) as client:
        (late,) = await client.session().decide("approve", "c0")
        (entry,) = (await client.session().get("/sessions/{id}/audit"))["entries"]
    assert late["metadata"]["code"] == "call_not_open"
    assert entry["decision"] == "expire"


async def test_a_decision_in_time_is_not_late_while_its_run_goes_on(database: str) -> None:
    held = Held(says("I see."))
    llm = model(chooses("coder"), write("a.py", "c0"), held, says("Bye."))
    async with service(llm, settings_for(database, approval_timeout_seconds=1, session_busy_seconds=5)) as client:
        session = client.session()
        await session.user("Write")
        rejecting = asyncio.create_task(session.decide("reject", "c0"))
        await held.asked.wait()
        await asyncio.sleep(1)
        again = asyncio.create_task(session.decide("reject", "c0"))
        assert (await session.user("No", busy="reject"))[-1]["metadata"]["code"] == "session_busy"
        next_one = asyncio.create_task(session.user("Well?"))
        await asyncio.sleep(0.1)
        held.release.set()
        assert await rejecting == await again == [text("I see.")]
        assert await next_one == [text("Bye.")]


async def test_a_result_that_is_under_way_is_not_lost_when_an_approval_beside_it_runs_out(tmp_path: Path) -> None:
    both = asks(
        ("write_file", "c0", '{"path": "a", "content": ""}'), ("write_file", "c1", '{"path": "b", "content": ""}')
    )
    llm = model(chooses("coder"), both, says("I see."))
    async with service(llm, settings_for(tmp_path)) as client:
        await client.session(parallel_tools=True).user("Write")
        await client.session(parallel_tools=True).decide("approve", "c0")
    async with service(llm, settings_for(tmp_path, approval_timeout_seconds=1e-6)) as client:
        session = client.session(parallel_tools=True)
        (late,) = await session.decide("approve", "c1")
        await session.result("ok", "c0")
        assert (await session.user("Well?"))[-1] == text("I see.")
        told = await session.get("/sessions/{id}/audit")
    assert late["metadata"]["code"] == "call_not_open"
    assert [(e["call_id"], e["decision"]) for e in told["entries"]] == [("c0", "approve"), ("c1", "expire")]
    assert [result["seq"] for result in told["results"]] == [1]


async def test_what_the_policy_denies_by_now_cannot_be_approved(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    llm = model(chooses("coder"), write("a.py", "c0"), says("Well."))
    async with service(llm, settings_for(tmp_path)) as client:
        await client.session().user("Write")
    file.write_text("default: deny\nrules: []\n")
    async with service(llm, settings_for(tmp_path, policy_file=str(file))) as client:
        session = client.session()
        (error,) = await session.decide("approve", "c0")
        assert error["metadata"]["code"] == "invalid_decision"
        assert await session.decide("reject", "c0") == [text("Well.")]


async def test_a_call_does_not_leave_when_the_audit_cannot_be_written(tmp_path: Path) -> None:
    llm = model(chooses("coder"), write("a.py", "c0"), write("a.py", "c1"))
    async with service(llm, settings_for(tmp_path, log_level="CRITICAL")) as client:
        session = client.session()
        await session.user("Write")
        changed(tmp_path, "alter table audit_log rename to gone")
        body = {"session_id": "s-1", "message": {"type": "hitl_decision", "call_id": "c0", "decision": "approve"}}
        refused = await client.http.post("/agent/message/stream", json=body)
        assert (refused.status_code, "tool_call" in refused.text) == (503, False)
        changed(tmp_path, "alter table gone rename to audit_log")
        await session.decide("approve", "c0", remember={"scope": "session"})
        changed(tmp_path, "alter table audit_log rename to gone")
        response = await client.http.post(
            "/agent/message/stream",
            json={"session_id": "s-1", "message": {"type": "tool_result", "call_id": "c0", "result": "ok"}},
        )
        assert "tool_call" not in response.text
        changed(tmp_path, "alter table gone rename to audit_log")


def changed(folder: Path, statement: str) -> None:
    engine = create_engine(f"sqlite:///{folder}/test.db")
    with engine.begin() as connection:
        connection.execute(sql(statement))
    engine.dispose()


async def test_what_a_policy_lets_pass_is_audited_as_that(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("rules:\n  - {id: free, tools: [write_file, read_file], decision: allow, reason: It is free.}\n")
    llm = model(chooses("coder"), write("a.py", "c0"), calls("read_file", call_id="c1", path="a.py"))
    async with service(llm, settings_for(tmp_path, policy_file=str(file))) as client:
        session = client.session()
        (_, sent) = await session.user("Write")
        assert sent["metadata"] == {"rule": "free", "reason": "It is free.", "passed_by": "policy"}
        assert await session.result("ok", "c0") == [tool_call("read_file", "c1", path="a.py")]
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
        shown = await session.get("/policy")
    assert (entry["call_id"], entry["decided_by"], entry["rule"]) == ("c0", "policy", "free")
    assert shown["rules"][0]["id"] == "free"
    assert shown["matrix"]["coder"]["write_file"][0]["decision"] == "allow"


@pytest.mark.parametrize("shipped", [False, True])
async def test_a_call_of_the_service_itself_can_be_made_to_ask(tmp_path: Path, shipped: bool) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("rules:\n  - {id: slow, tools: [echo], decision: ask, reason: Slowly.}\n")
    llm = model(chooses("coder"), asks(("echo", "call_1", '{"text": "hi"}')), says("Done."))
    async with service(llm, settings_for(tmp_path, policy_file=str(file))) as client:
        session = client.session()
        (_, asked) = await session.user("Say hi")
        assert (asked["requires_approval"], asked["metadata"]) == (True, {"rule": "slow", "reason": "Slowly."})
        answer = await (session.result("the IDE's own") if shipped else session.decide("approve"))
        assert answer == [text("Done.")]
        assert (await session.history())[2]["content"] == "hi"


async def test_control_characters_reach_no_reader_of_the_audit(tmp_path: Path) -> None:
    command = "printf '\x1b[2J\u202e'\n\tmake"
    llm = model(chooses("coder"), calls("execute_command", command=command), says("Done."))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Go")
        await session.decide("reject", feedback="no\x07")
        (entry,) = (await session.get("/sessions/{id}/audit"))["entries"]
    assert entry["original_arguments"] == {"command": "printf '\\x1b[2J\\u202e'\n\tmake"}
    assert entry["feedback"] == "no\\x07"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_tool_calls": 2}, "The turn was stopped at its limit of 2 tool calls. Send a message to go on."),
        ({"max_model_calls": 2}, "The turn was stopped after 2 model calls. Send a message to go on."),
    ],
)
async def test_a_turn_ends_at_its_limits(tmp_path: Path, limits: dict[str, int], said: str) -> None:
    reads = [calls("read_file", call_id=f"c{n}", path="a.py") for n in range(3)]
    llm = model(chooses("ask"), *reads[: 2 + ("max_tool_calls" in limits)], says("Fine."))
    async with service(llm, settings_for(tmp_path, **limits)) as client:
        session = client.session()
        await session.user("Read")
        await session.result("x", "c0")
        (error,) = await session.result("x", "c1")
        assert (error["error"], error["metadata"]["code"]) == (said, "limit_reached")
        assert await session.user("Go on") == [text("Fine.")]


async def test_a_run_ends_at_its_time(tmp_path: Path) -> None:
    llm = model(chooses("ask"), Held(says("Never.")), says("Fine."))
    async with service(llm, settings_for(tmp_path, max_run_minutes=0.001)) as client:
        session = client.session()
        error = (await session.user("Hello"))[-1]
        assert error["metadata"]["code"] == "limit_reached"
        assert error["error"] == "The run was stopped after 0.001 minutes. Send a message to go on."
        assert await session.user("Go on") == [text("Fine.")]


async def test_the_policy_is_read_anew_at_a_hangup(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("default: deny\nrules: []\n")
    question = {"agent": "coder", "tool": "read_file", "arguments": {"path": "a"}}
    async with serving(f"sqlite:///{tmp_path}/test.db", policy_file=str(file)) as process:
        for default in ("ask", "nonsense", "allow"):
            before = (await process.http.post("/policy/explain", json=question)).json()["decision"]
            file.write_text(f"default: {default}\nrules: []\n")
            os.kill(process.process.pid, signal.SIGHUP)
            wanted = before if default == "nonsense" else default
            while (await process.http.post("/policy/explain", json=question)).json()["decision"] != wanted:
                continue


async def test_a_service_with_a_wrong_policy_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("rules:\n  - id: x\n    decision: maybe\n    reason: r\n")
    with pytest.raises(RuntimeError) as refused:
        async with serving(f"sqlite:///{tmp_path}/test.db", policy_file=str(file)):
            pass
    assert f"{file}:3: rules.0.decision: Input should be 'allow', 'ask' or 'deny'" in str(refused.value)
    assert "Traceback" not in str(refused.value)


async def test_an_edit_is_judged_anew_and_the_grant_is_of_what_ran(tmp_path: Path) -> None:
    llm = model(chooses("architect"), write("a.md", "c0"), write("b.md", "c1"))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        await session.user("Write")
        (refused,) = await session.decide("edit", "c0", modified_arguments={"path": "a.py"}, remember={"scope": "turn"})
        assert refused["metadata"]["code"] == "edit_refused"
        await session.decide("edit", "c0", modified_arguments={"path": "b.md"}, remember={"scope": "turn"})
        assert (await grants(session))["grants"][0]["pattern"] == "b.md"
        assert (await session.result("ok", "c0"))[-1]["metadata"]["passed_by"] == "grant"


async def test_a_warning_is_part_of_what_the_user_is_asked(tmp_path: Path) -> None:
    llm = model(chooses("coder"), write(".github/workflows/ci.yml", "c0"))
    async with service(llm, settings_for(tmp_path)) as client:
        session = client.session()
        (_, asked) = await session.user("Write")
        (pending,) = (await session.get("/sessions/{id}/pending-approvals"))["pending_approvals"]
    warning = "It is run by continuous integration, with its rights and its secrets."
    reason = f"Writing a file needs the user's approval. {warning}"
    expected = approval("write_file", "write.file", reason, "c0", path=".github/workflows/ci.yml", content="x")
    assert asked == {**expected, "metadata": {**expected["metadata"], "warning": warning}}
    assert pending["reason"] == reason
