"""An evening's work, recorded: 300 turns over this project's own files, through the IDE of the terminal."""

import io
import json
import shutil
from collections import Counter, deque
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ide.approval import Approver
from ide.chat import Chat
from ide.client import Client
from ide.screen import Screen
from ide.workspace import Workspace
from sessions.audit import broken_at
from tests.evening.model import Model
from tests.process import ROOT
from tests.service import KEY, service, settings_for

pytestmark = pytest.mark.anyio
RECORDING = Path(__file__).with_name("recording.jsonl")
WORKED_ON = ("graph", "policy", "ide", "nodes", "prompts")
BUDGET = 12_000


class User:
    """Says what is recorded, and answers what it is asked so."""

    def __init__(self, client: Client, workspace: Workspace) -> None:
        self.shown = io.StringIO()
        screen = Screen(Console(file=self.shown, width=200))
        self.chat = Chat(client, workspace, screen, Approver(screen, workspace, self._answer), "evening")
        self.answers: deque[str] = deque()

    async def _answer(self, _: str) -> str:
        return self.answers.popleft()

    async def says(self, turn: dict[str, Any]) -> None:
        self.answers.extend(turn.get("answers", ()))
        if agent := turn.get("switch"):
            await self.chat.say({"type": "switch_agent", "agent_type": agent})
        await self.chat.say({"type": "user_message", "content": turn["user"]})


async def test_three_hundred_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [json.loads(line) for line in RECORDING.read_text("utf-8").splitlines()]
    monkeypatch.setenv("EDITOR", "sed -i s/draft/final/")
    workspace = _workspace(tmp_path / "project")
    model = Model(BUDGET)
    async with model.server as llm:
        given = {"llm_model": "evening", "llm_proxy_url": llm.url, "llm_retry_delay_seconds": 0}
        settings = settings_for(tmp_path, context_tokens=BUDGET, prune_after_runs=0, **given)
        async with service(None, settings) as gateway, Client(str(gateway.http.base_url), KEY) as client:
            user = User(client, workspace)
            left = []
            for turn in turns:
                model.begins(turn)
                await user.says(turn)
                if model.left or user.answers:
                    left.append(f"turn {turn['turn']}: {model.left} steps and {len(user.answers)} answers are left")
                    user.answers.clear()
            session = gateway.session("evening")
            history = await session.history()
            audit = await session.get("/sessions/{id}/audit")
            shown = await session.get("/sessions/{id}/view")
    assert (model.faults, left) == ([], [])
    assert model.summaries > 5
    assert model.largest > 0.7 * BUDGET
    assert [each["content"] for each in history if each["role"] == "user"] == [turn["user"] for turn in turns]
    assert _unanswered(history) == []
    assert shown["message_count"] == len(history)
    assert broken_at("evening", audit["entries"], audit["results"]) is None
    decisions = Counter(each["decision"] for each in audit["entries"])
    assert decisions == _decisions(turns)
    assert _files(workspace) == _expected(turns)
    told = user.shown.getvalue()
    assert told.count("llm_unavailable:") == sum("broken" in step for turn in turns for step in turn["steps"])


def _workspace(folder: Path) -> Workspace:
    for name in WORKED_ON:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", folder)
    return Workspace(folder)


def _unanswered(history: list[dict[str, Any]]) -> list[str]:
    answered = {each["tool_call_id"] for each in history if each["role"] == "tool"}
    return [call["id"] for each in history for call in each.get("tool_calls") or () if call["id"] not in answered]


def _decided(turns: list[dict[str, Any]]) -> Any:
    """The answers to approvals, in order."""
    for turn in turns:
        answers = iter(turn.get("answers", ()))
        for answer in answers:
            yield answer
            if answer == "r":
                next(answers)


def _decisions(turns: list[dict[str, Any]]) -> dict[str, int]:
    names = {"a": "approve", "e": "edit", "r": "reject"}
    return Counter(names[answer] for answer in _decided(turns))


def _expected(turns: list[dict[str, Any]]) -> dict[str, str]:
    """What the writes that were agreed to leave behind."""
    decided = _decided(turns)
    found = {}
    for turn in turns:
        for name, arguments in (call for step in turn["steps"] for call in step.get("calls", ())):
            if name == "write_file" and "not_allowed" not in arguments["path"]:
                answer = next(decided)
                if answer != "r":
                    content = arguments["content"]
                    found[arguments["path"]] = content.replace("draft", "final") if answer == "e" else content
            elif name == "execute_command" and arguments["command"].startswith("python3"):
                next(decided)
    return found


def _files(workspace: Workspace) -> dict[str, str]:
    made = (path for name in ("scratch", "notes") for path in (workspace.root / name).rglob("*") if path.is_file())
    return {str(path.relative_to(workspace.root)): path.read_text("utf-8") for path in made}
