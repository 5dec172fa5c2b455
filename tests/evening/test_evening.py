"""A long evening over a real project's files: 300 turns in a small window, and at every model call all is in order."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prompts import ORCHESTRATOR
from sessions.store import audit
from tests.evening.model import BROKEN_OFF, THE_TITLE, Model
from tests.evening.recording import CTRL_C, DRAFT, FINAL, Call, Turn, calls, recorded, switches, tree, written
from tests.evening.user import User
from tests.llm_server import ScriptedLLM
from tests.service import Session, service, settings_for
from tests.test_properties import check_sound

pytestmark = pytest.mark.anyio

BUDGET = 12_000
PROJECT = Path(__file__).with_name("project.zip")
"""The source tree that the recording was made over, frozen: the recording names 71 of its paths."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The frozen project, unpacked into a folder that the evening may change."""
    folder = tmp_path / "project"
    shutil.unpack_archive(PROJECT, folder)
    return folder


async def test_an_evening_of_300_turns(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", f"sed -i s/{DRAFT}/{FINAL}/g")
    turns, model, before = recorded(), Model(BUDGET), tree(project)
    async with ScriptedLLM(otherwise=model.answer) as llm:
        settings = settings_for(tmp_path, **of_the_evening(llm.url))
        for part in (turns[:150], turns[150:]):  # the service and the IDE are started again in between
            async with service(None, settings) as client, User(str(client.http.base_url), project, "s-1") as user:
                for turn in part:
                    model.begin(turn)
                    model.end(await user.plays(turn))
            model.restarted()
        async with service(None, settings) as client:
            assert "\n".join(model.failures) == ""
            check_requests(model, turns)
            await check_session(client.session(), turns)
            await check_audit(client.session(), turns)
            await check_usage(client.session(), turns, model.told)
    assert tree(project) == written(turns, before)


def of_the_evening(url: str) -> dict[str, Any]:
    model = {"llm_model": "scripted", "llm_proxy_url": url, "llm_retry_delay_seconds": 0, "llm_titles": True}
    return {**model, "context_tokens": BUDGET}


def check_requests(model: Model, turns: list[Turn]) -> None:
    """Each line was asked for; each summary goes on where the one before it ended, and none tells anything twice."""
    assert len(turns) == 300
    assert model.asked == sum(len(turn.model) for turn in turns)
    assert model.titles == [turns[0].words]
    assert model.largest > 0.9 * BUDGET
    assert len(model.summaries) >= 20
    before = [material[0].get("summary so far", "").partition(".")[0] for material in model.summaries]
    assert before == ["", *(f"This is summary {n}" for n in range(1, len(model.summaries)))]
    told = [line["text"] for material in model.summaries for line in material if line.get("from") == "user"]
    assert [text[:200] for text in told] == [turn.words[:200] for turn in turns[: len(told)]]


async def check_session(session: Session, turns: list[Turn]) -> None:
    """What clients see is whole."""
    found = await session.get("/sessions/{id}/history")
    messages = found["messages"]
    assert check_sound(messages) == []
    assert [message["content"] for message in messages if message["role"] == "user"] == [turn.words for turn in turns]
    assert [_told(call) for message in messages for call in message.get("tool_calls", ())] == [
        (call.tool, call.kept) for call in calls(turns)
    ]
    answers = [message["content"] for message in messages if message["role"] == "tool"]
    for call, answer in zip(calls(turns), answers, strict=True):
        assert (_feedback(call) or "") in answer
    assert [(switch["from"], switch["to"]) for switch in found["agent_history"]] == switches(turns)
    assert (await session.get("/sessions/{id}"))["title"] == THE_TITLE


def _told(call: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return call["function"]["name"], json.loads(call["function"]["arguments"])


async def check_audit(session: Session, turns: list[Turn]) -> None:
    found = await session.get("/sessions/{id}/audit")
    assert audit.first_broken_entry(session.id, found["entries"], found["results"]) is None
    by_hand = [entry for entry in found["entries"] if entry["decided_by"] == "hitl_decision"]
    assert [(entry["tool_name"], entry["decision"], entry["feedback"]) for entry in by_hand] == [
        (call.tool, call.decision, _feedback(call)) for call in calls(turns) if call.decision
    ]
    left_open = [entry["tool_name"] for entry in found["entries"] if entry["decision"] == "cancel"]
    assert left_open == [call.tool for call in calls(turns) if call.user == [CTRL_C]]


def _feedback(call: Call) -> str | None:
    return call.user[1] if call.decision == "reject" else None


async def check_usage(session: Session, turns: list[Turn], summaries: int) -> None:
    """Each call that said something is counted, once; of one that broke off it is estimated."""
    lines = [line for turn in turns for line in turn.model if not line.fault or line.fault in BROKEN_OFF]
    found = await session.get("/sessions/{id}/usage")
    assert {purpose: used["model_calls"] for purpose, used in found["purposes"].items()} == {
        "classification": sum(line.by == ORCHESTRATOR for line in lines),
        "answer": sum(line.by != ORCHESTRATOR for line in lines),
        "summary": summaries,
        "title": 1,
    }
    assert found["estimated_calls"] == sum(line.fault in BROKEN_OFF for line in lines)
