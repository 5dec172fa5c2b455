"""The agent menu of the shipped IDE sends a text with every choice. That text is not the user's."""

from pathlib import Path
from typing import Any

import pytest

from graph.wire import MESSAGE_ADAPTER, SwitchAgent
from prompts import AGENTS, CLASSIFIER, ORCHESTRATOR, Agent
from tests.support.scripted import call_tool, choose_agent, make_model, say_text
from tests.support.service import agent_switch_chunk, settings_for, start_service, text_chunk

NULLS = dict.fromkeys(
    [
        *("role", "token", "call_id", "tool_name", "arguments", "result", "error", "decision"),
        *("modified_arguments", "feedback", "metadata", "reason"),
    ]
)
"""The fields of the IDE's message class that a choice leaves empty. It sends them all."""


def choose_in_menu(agent: str, text: str) -> dict[str, Any]:
    return {"type": "switch_agent", "agent_type": agent, "content": text, **NULLS}


def make_ack(before: str, to: str) -> dict[str, Any]:
    chunk = agent_switch_chunk(before, to, "The user chose it.")
    return chunk | {
        "metadata": {"from_agent": before, "to_agent": to, "reason": "The user chose it."},
        "is_final": True,
    }


def parse_switch(agent: str, text: str) -> SwitchAgent:
    message = MESSAGE_ADAPTER.validate_python(choose_in_menu(agent, text))
    assert isinstance(message, SwitchAgent)
    return message


async def test_choice_in_the_menu_is_acknowledged_and_leaves_no_text(tmp_path: Path) -> None:
    llm = make_model(say_text("Hi."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        assert await session.send(choose_in_menu("coder", "Switched to Coder")) == [make_ack("orchestrator", "coder")]
        assert await session.fetch_history() == []
        shown = await session.get("/sessions/{id}")
        assert (shown["title"], shown["message_count"], shown["current_agent"]) == ("", 0, "coder")
        assert await session.send_text("Hello") == [text_chunk("Hi.")]
        assert (await session.get("/sessions/{id}"))["title"] == "Hello"
    assert [message.content for message in llm.prompts[0][1:]] == ["Hello"]


async def test_the_orchestrator_can_be_chosen_and_classifies_the_next_message(tmp_path: Path) -> None:
    """The user left the agent of the first choice, so the same words must not bring it back from the cache."""
    llm = make_model(say_text("One."), say_text("Two."), choices=[choose_agent("ask"), choose_agent("coder")])
    async with start_service(llm, settings_for(tmp_path, routing_cache_size=1_000)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        assert await session.send(choose_in_menu("orchestrator", "Switched to Orchestrator")) == [
            make_ack("ask", "orchestrator")
        ]
        assert await session.send_text("Write a.py") == [
            agent_switch_chunk("orchestrator", "coder"),
            text_chunk("Two."),
        ]
        history = (await session.get("/agents/{id}/current"))["agent_history"]
    assert [(each["from"], each["to"]) for each in history] == [
        ("orchestrator", "ask"),
        ("ask", "orchestrator"),
        ("orchestrator", "coder"),
    ]


async def test_message_to_the_orchestrator_is_classified_again(tmp_path: Path) -> None:
    llm = make_model(say_text("One."), say_text("Two."), choices=[choose_agent("ask"), choose_agent("coder")])
    async with start_service(llm, settings_for(tmp_path, routing_cache_size=1_000)) as client:
        session = client.open_session()
        await session.send_text("Write a.py")
        hop, chosen, answer = await session.switch("orchestrator", content="Write a.py")
    assert hop == make_ack("ask", "orchestrator") | {"is_final": False}
    assert [chosen, answer] == [agent_switch_chunk("orchestrator", "coder"), text_chunk("Two.")]


async def test_choice_of_the_present_agent_is_recorded_nowhere(tmp_path: Path) -> None:
    llm = make_model(
        call_tool("switch_mode", mode="debug"), say_text("One."), say_text("Two."), choices=[choose_agent("ask")]
    )
    async with start_service(llm, settings_for(tmp_path)) as client:
        session = client.open_session()
        await session.send_text("Why?")
        before = [await session.get(path) for path in ("/agents/{id}/current", "/sessions/{id}/history")]
        assert await session.send(choose_in_menu("debug", "Switched to Debug")) == [make_ack("debug", "debug")]
        after = [await session.get(path) for path in ("/agents/{id}/current", "/sessions/{id}/history")]
        for each in (*before, *after):
            each.pop("last_activity", None)
        assert after == before
        export = await session.get("/sessions/{id}/export")
        assert [each["override"] for each in export["routings"]] == [None]
        assert export["audit"]["entries"] == []
        # With words of the user there is nothing to announce: the agent has the conversation already.
        assert await session.switch("debug", content="And now?") == [text_chunk("Two.")]


async def test_agent_that_hands_over_to_itself_is_not_announced(tmp_path: Path) -> None:
    llm = make_model(choose_agent("ask"), call_tool("switch_mode", mode="ask"), say_text("Still me."))
    async with start_service(llm, settings_for(tmp_path)) as client:
        assert await client.open_session().send_text("Hello") == [
            agent_switch_chunk("orchestrator", "ask"),
            text_chunk("Still me."),
        ]


async def test_universal_can_be_chosen_in_single_agent_mode(tmp_path: Path) -> None:
    async with start_service(make_model(say_text("Hi.")), settings_for(tmp_path, multi_agent_mode=False)) as client:
        session = client.open_session()
        assert await session.send(choose_in_menu("universal", "Switched to Universal")) == [
            make_ack("orchestrator", "universal")
        ]
        assert await session.send_text("Hello") == [text_chunk("Hi.")]


def test_every_agent_has_a_text_in_the_menu() -> None:
    names = {name: agent.display_name for name, agent in {ORCHESTRATOR: CLASSIFIER, **AGENTS}.items()}
    standard = ("orchestrator", "coder", "architect", "debug", "ask", "universal")
    assert [names[name] for name in standard] == ["Orchestrator", "Coder", "Architect", "Debug", "Ask", "Universal"]
    assert {name: parse_switch(name, f"Switched to {shown}").content for name, shown in names.items()} == dict.fromkeys(
        names, ""
    )


def test_display_name_of_an_added_agent_is_its_title() -> None:
    added = {"name": "reviewer", "description": "Reviews changes of the team.", "tools": ["read_file"]}
    prompt = "You review the changes of the team."
    titles = ("Code Reviewer Agent", "Code Reviewer", "Agent Smith")
    assert [Agent(**added, title=title, prompt=prompt).display_name for title in titles] == [
        *("Code Reviewer", "Code Reviewer", "Agent Smith")
    ]


@pytest.mark.parametrize(
    ("agent", "text"),
    [
        ("architect", "Switched to Coder"),
        ("coder", "Switched to coder"),
        ("coder", "switched to Coder"),
        ("coder", "Switched to Coder."),
        ("coder", "Switched to Coder\nWrite a.py"),
        ("coder", " Switched to Coder"),
        ("coder", "Switched to Coder agent"),
        ("coder", "Switched to"),
    ],
)
def test_any_other_text_is_the_users(agent: str, text: str) -> None:
    assert parse_switch(agent, text).content == text
