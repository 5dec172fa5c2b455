"""The command line explains the gate, compares policies, and checks audits."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.__main__ import main
from tests.support.scripted import call_tool, choose_agent, make_model, say_text
from tests.support.service import settings_for, start_service
from tests.support.storage import execute_script

FREE_POLICY = "default: ask\nrules:\n  - {id: free, tools: [write_file], decision: allow, reason: It is free.}\n"
STRICT_POLICY = "rules:\n  - {id: no.docs, tools: [write_file], paths: [docs/**], decision: deny, reason: Not there.}\n"


def test_explain_prints_the_decision_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "coder", "execute_command", "command=ls -la | wc -l", "timeout=5"]) == 0
    assert capsys.readouterr().out == (
        "decision: allow\nrule:     command.read_only\nreason:   The command is known to only read.\n"
    )
    assert main(["explain", "architect", "write_file", '{"path": "a.py", "content": "x"}']) == 0
    assert "rule:     agent.may_write" in capsys.readouterr().out


def test_explain_accepts_another_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(FREE_POLICY)
    assert main(["explain", "coder", "write_file", "path=.env", "content=x", "--policy", str(file)]) == 0
    assert "decision: allow" in capsys.readouterr().out


def test_matrix_prints_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["orchestrator", "architect", "ask", "coder", "debug", "universal"]
    cells = {row.split()[0]: row.split()[1:] for row in rows[:11]}
    assert cells["write_file"] == ["-", "deny/ask", "-", "ask", "-", "ask"]
    assert cells["execute_command"] == ["-", "-", "-", "allow/ask", "ask/allow", "allow/ask"]


async def test_replay_applies_a_new_policy_and_verify_checks_the_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = [
        call_tool("write_file", call_id=f"c{n}", path=path, content="x") for n, path in enumerate(("docs/a", "b"))
    ]
    async with start_service(
        make_model(choose_agent("coder"), *writes, say_text("Done.")), settings_for(tmp_path)
    ) as client:
        session = client.open_session()
        await session.send_text("Write")
        await session.decide("approve", "c0")
        await session.send_result("ok", "c0")
        await session.decide("reject", "c1")
        told = await client.http.get("/sessions/s-1/audit")
        ndjson = await client.http.get("/sessions/s-1/audit?results=true", headers={"Accept": "application/x-ndjson"})
    whole, lines = tmp_path / "audit.json", tmp_path / "audit.ndjson"
    whole.write_bytes(told.content)
    lines.write_bytes(ndjson.content)
    policy = tmp_path / "policy.yaml"
    for text, status, said in ((FREE_POLICY, 1, "2 of 2"), (STRICT_POLICY, 1, "2 of 2")):
        policy.write_text(text)
        for file in (whole, lines):
            assert main(["replay", "--audit", str(file), "--policy", str(policy)]) == status
            out = capsys.readouterr().out
            assert f"{said} entries would be decided otherwise" in out
    assert '1  coder write_file {"path": "docs/a", "content": "x"}: ask -> deny (no.docs)' in out
    assert main(["replay", "--audit", str(whole)]) == 0
    database = f"sqlite:///{tmp_path}/test.db"
    monkeypatch.setenv("AGENT_RUNTIME__DB_URL", database)
    for arguments in ([str(whole)], [str(lines)], []):
        capsys.readouterr()
        assert main(["verify", *arguments]) == 0
        assert capsys.readouterr().out == "1 of 1 sessions are whole, 2 entries were read.\n"
    shifted = json.loads(told.content)
    shifted["results"][0]["seq"] = 0
    whole.write_text(json.dumps(shifted))
    assert main(["verify", str(whole)]) == 1
    assert "s-1: broken at entry 3" in capsys.readouterr().out
    forged = json.loads(told.content)
    forged["entries"][1]["decision"] = "approve"
    whole.write_text(json.dumps(forged))
    execute_script(database, "update audit_results set result_hash = 'x'")
    for arguments, seq in (([str(whole)], 2), ([], 1)):
        assert main(["verify", *arguments]) == 1
        assert f"s-1: broken at entry {seq}" in capsys.readouterr().out
    execute_script(database, "delete from audit_log")
    assert main(["verify"]) == 1
    assert "s-1: broken at entry 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain", "coder", "echo", "text"], "'text' is no argument; write NAME=VALUE, or one JSON object"),
        (["explain", "coder", "echo", '{"text'], "the arguments are no JSON object"),
        (["explain", "coder", "echo", "--policy", "none.yaml"], "none.yaml: it cannot be read"),
        (["replay", "--audit", "none.json"], "No such file or directory: 'none.json'"),
        (["replay", "--audit", "FILE"], "it is no audit of the service; get it from GET /sessions/ID/audit"),
        (["verify", "FILE"], "it is no audit of the service"),
    ],
)
@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        "{}",
        '{"entries": 1}',
        '{"seq": 1}\n{"seq": 2}',
        "\x00",
        "nul\xff",
        '"result_hash"',
        '{"result_hash": 1}',
    ],
)
def test_invalid_arguments_give_one_line_of_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str, content: str
) -> None:
    file = tmp_path / "audit"
    file.write_bytes(content.encode("latin-1"))
    given: list[Any] = [str(file) if word == "FILE" else word for word in arguments]
    empty = content == "" and "FILE" in arguments
    assert main(given) == (0 if empty else 2)
    error = capsys.readouterr().err
    assert empty or (said in error and error.count("\n") == 1)
