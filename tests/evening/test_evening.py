"""A long evening over a real project's files: 300 turns in a small window, with a valid request at every model call."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prompts import ORCHESTRATOR
from sessions.store import audit
from tests.evening.model import EXPECTED_TITLE, MIDSTREAM_FAULTS, EveningModel
from tests.evening.recording import (
    CTRL_C,
    DRAFT,
    FINAL,
    RecordedToolCall,
    RecordedTurn,
    apply_writes,
    list_agent_switches,
    list_tool_calls,
    load_turns,
    read_tree,
)
from tests.evening.user import User
from tests.support.conversations import check_conversation
from tests.support.llm_server import ScriptedLLM
from tests.support.service import SessionClient, settings_for, start_service

BUDGET = 12_000
PROJECT_ARCHIVE = Path(__file__).with_name("project.zip")
"""The frozen source tree of the recording, which names 71 of its paths."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Unpack the frozen project into a folder that the evening may change."""
    folder = tmp_path / "project"
    shutil.unpack_archive(PROJECT_ARCHIVE, folder)
    return folder


async def test_an_evening_of_300_turns(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", f"sed -i s/{DRAFT}/{FINAL}/g")
    turns, model, before = load_turns(), EveningModel(BUDGET), read_tree(project)
    async with ScriptedLLM(otherwise=model.answer_request) as llm:
        settings = settings_for(tmp_path, **build_settings(llm.url))
        for part in (turns[:150], turns[150:]):  # the service and the IDE are started again in between
            async with start_service(None, settings) as client, User(str(client.http.base_url), project, "s-1") as user:
                for turn in part:
                    model.begin_turn(turn)
                    model.end_turn(await user.play_turn(turn))
            model.discard_unused_summaries()
        async with start_service(None, settings) as client:
            assert "\n".join(model.failures) == ""
            check_requests(model, turns)
            await check_session(client.open_session(), turns)
            await check_audit(client.open_session(), turns)
            await check_usage(client.open_session(), turns, model.used_summaries)
    assert read_tree(project) == apply_writes(turns, before)


def build_settings(url: str) -> dict[str, Any]:
    model = {"llm_model": "scripted", "llm_proxy_url": url, "llm_retry_delay_seconds": 0, "llm_titles": True}
    return {**model, "context_tokens": BUDGET}


def check_requests(model: EveningModel, turns: list[RecordedTurn]) -> None:
    """Check that each line was requested, and that each summary starts where the one before it ended."""
    assert len(turns) == 300
    assert model.request_count == sum(len(turn.model) for turn in turns)
    assert model.titles == [turns[0].user_text]
    assert model.largest_request > 0.9 * BUDGET
    assert len(model.summaries) >= 20
    before = [material[0].get("summary so far", "").partition(".")[0] for material in model.summaries]
    assert before == ["", *(f"This is summary {n}" for n in range(1, len(model.summaries)))]
    told = [line["text"] for material in model.summaries for line in material if line.get("from") == "user"]
    assert [text[:200] for text in told] == [turn.user_text[:200] for turn in turns[: len(told)]]


async def check_session(session: SessionClient, turns: list[RecordedTurn]) -> None:
    """Check that clients see the whole session."""
    found = await session.get("/sessions/{id}/history")
    messages = found["messages"]
    assert check_conversation(messages) == []
    assert [message["content"] for message in messages if message["role"] == "user"] == [
        turn.user_text for turn in turns
    ]
    assert [_parse_call(call) for message in messages for call in message.get("tool_calls", ())] == [
        (call.tool, call.final_arguments) for call in list_tool_calls(turns)
    ]
    answers = [message["content"] for message in messages if message["role"] == "tool"]
    for call, answer in zip(list_tool_calls(turns), answers, strict=True):
        assert (_get_feedback(call) or "") in answer
    assert [(switch["from"], switch["to"]) for switch in found["agent_history"]] == list_agent_switches(turns)
    assert (await session.get("/sessions/{id}"))["title"] == EXPECTED_TITLE


def _parse_call(call: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return call["function"]["name"], json.loads(call["function"]["arguments"])


async def check_audit(session: SessionClient, turns: list[RecordedTurn]) -> None:
    found = await session.get("/sessions/{id}/audit")
    assert audit.first_broken_entry(session.id, found["entries"], found["results"]) is None
    by_hand = [entry for entry in found["entries"] if entry["decided_by"] == "hitl_decision"]
    assert [(entry["tool_name"], entry["decision"], entry["feedback"]) for entry in by_hand] == [
        (call.tool, call.decision, _get_feedback(call)) for call in list_tool_calls(turns) if call.decision
    ]
    left_open = [entry["tool_name"] for entry in found["entries"] if entry["decision"] == "cancel"]
    assert left_open == [call.tool for call in list_tool_calls(turns) if call.user == [CTRL_C]]


def _get_feedback(call: RecordedToolCall) -> str | None:
    return call.user[1] if call.decision == "reject" else None


async def check_usage(session: SessionClient, turns: list[RecordedTurn], summaries: int) -> None:
    """Check that each answered call is counted once; the usage of an interrupted one is estimated."""
    lines = [line for turn in turns for line in turn.model if not line.fault or line.fault in MIDSTREAM_FAULTS]
    found = await session.get("/sessions/{id}/usage")
    assert {purpose: used["model_calls"] for purpose, used in found["purposes"].items()} == {
        "classification": sum(line.by == ORCHESTRATOR for line in lines),
        "answer": sum(line.by != ORCHESTRATOR for line in lines),
        "summary": summaries,
        "title": 1,
    }
    assert found["estimated_calls"] == sum(line.fault in MIDSTREAM_FAULTS for line in lines)
