"""A remembered approval does not cover a call whose path a rule or a warning is about, unless it is the same call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted import call_tool, choose_agent, make_model, say_text
from tests.support.service import settings_for, start_service

POLICY = """
rules:
  - {id: denied, tools: ["*"], paths: [config/prod.yaml], decision: deny, reason: It is the live system.}
  - {id: careful, tools: [write_file], paths: [src/**], decision: ask, reason: Look at the code.}
  - {id: all, decision: ask, reason: Ask.}
warnings:
  - {paths: [AGENTS.md, .github/workflows/**], warning: Agents follow it.}
"""


async def propose_again(tmp_path: Path, pattern: str | None, calls: Sequence[dict[str, Any]]) -> list[str]:
    """Remember the approval of the first call; return how each later call fared: granted or asked."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    tools = ["write_file" if "path" in call else "execute_command" for call in calls]
    lines = [call_tool(tool, call_id=f"c{n}", **call) for n, (tool, call) in enumerate(zip(tools, calls, strict=True))]
    llm = make_model(choose_agent("coder"), *lines, say_text("Done."))
    settings = settings_for(tmp_path, policy_file=str(tmp_path / "policy.yaml"))
    outcomes = []
    async with start_service(llm, settings) as client:
        session = client.open_session()
        await session.send_text("Work")
        remember = {"scope": "session"} | ({"pattern": pattern} if pattern else {})
        await session.decide("approve", "c0", remember=remember)
        for n in range(1, len(calls)):
            asked = (await session.send_result("ok", f"c{n - 1}"))[-1]
            assert (asked["type"], asked["call_id"]) == ("tool_call", f"c{n}")
            outcomes.append(asked["metadata"].get("passed_by", "asked"))
            if asked["requires_approval"]:
                await session.decide("approve", f"c{n}")
    return outcomes


@pytest.mark.parametrize(
    "command",
    [
        *("cp docs/a.md AGENTS.md", "cp docs/a.md .github/workflows/x.yml", "cp docs/a.md .github"),
        *("cp docs/a.md src/x.py", "cp docs/a.md src", "cp docs/a.md .", "cp docs/a.md -t docs"),
    ],
)
async def test_pattern_covers_no_protected_path(tmp_path: Path, command: str) -> None:
    calls: list[dict[str, Any]] = [
        {"command": text} for text in ("cp docs/a.md b.md", "cp docs/a.md docs/c.md", command)
    ]
    assert await propose_again(tmp_path, "cp docs/a.md *", calls) == ["grant", "asked"]


async def test_command_with_a_warning_is_covered_by_a_grant_for_itself(tmp_path: Path) -> None:
    one: dict[str, Any] = {"command": "cp docs/a.md AGENTS.md"}
    other = {"command": "cp docs/b.md AGENTS.md"}
    assert await propose_again(tmp_path, None, [one, one, other, {**one, "timeout": 300}]) == [
        "grant",
        "asked",
        "asked",
    ]


async def test_file_with_a_warning_is_covered_with_the_same_content_only(tmp_path: Path) -> None:
    one: dict[str, Any] = {"path": "AGENTS.md", "content": "x"}
    others = [{**one, "content": "y"}, {**one, "encoding": "utf-16"}, {**one, "backup": False}]
    assert await propose_again(tmp_path, None, [one, one, *others]) == ["grant", "asked", "asked", "asked"]


async def test_ordinary_file_is_covered_with_any_content(tmp_path: Path) -> None:
    one = {"path": "docs/a.md", "content": "x"}
    assert await propose_again(tmp_path, None, [one, {**one, "content": "y"}, {**one, "path": "b.md"}]) == [
        "grant",
        "asked",
    ]
