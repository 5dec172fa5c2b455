"""The files of the team give each agent its tools and limits, and an invalid file is refused."""

import re
from pathlib import Path
from string import Template

import pytest

from graph.routing.classifier import build_classifier_prompt
from graph.tools.catalog import TOOLS, validate_agent
from prompts import AGENTS, CLASSIFIER, check_template, load_agent, select_team

READ_TOOLS = {"read_file", "list_files", "search_in_code"}
IDE_TOOLS = READ_TOOLS | {"write_file", "create_directory", "execute_command"}
ENDING_TOOLS = {"attempt_completion", "ask_followup_question"}
SPECIALIST_TOOLS = {"switch_mode", "calculator"}

TOOLS_BY_AGENT = {
    "orchestrator": READ_TOOLS,
    "coder": IDE_TOOLS | ENDING_TOOLS | SPECIALIST_TOOLS | {"echo"},
    "architect": READ_TOOLS | {"write_file"} | ENDING_TOOLS | SPECIALIST_TOOLS,
    "debug": READ_TOOLS | {"execute_command"} | ENDING_TOOLS | SPECIALIST_TOOLS,
    "ask": READ_TOOLS | {"attempt_completion"} | SPECIALIST_TOOLS,
    "universal": IDE_TOOLS | ENDING_TOOLS | {"calculator", "echo"},
}


def test_the_team_has_the_tools_of_the_contract() -> None:
    tools = {agent.name: set(agent.tools) for agent in [CLASSIFIER, *AGENTS.values()]}
    assert {name: tools[name] for name in TOOLS_BY_AGENT} == TOOLS_BY_AGENT
    assert all(len(set(agent.tools)) == len(agent.tools) for agent in AGENTS.values())
    assert set().union(*TOOLS_BY_AGENT.values()) == TOOLS.keys()


def test_the_team_has_the_limits_of_the_contract() -> None:
    limits = {
        name: (AGENTS[name].may_write, AGENTS[name].read_only_commands)
        for name in TOOLS_BY_AGENT.keys() & AGENTS.keys()
    }
    everything = (("*",), False)
    assert limits == {
        "architect": (("*.md",), False),
        "ask": everything,
        "coder": everything,
        "debug": (("*",), True),
        "universal": everything,
    }


def test_titles_follow_the_agent_names() -> None:
    titles = {agent.name: agent.title for agent in [CLASSIFIER, *AGENTS.values()]}
    assert {name: titles[name] for name in TOOLS_BY_AGENT} == {
        name: f"{name.capitalize()} Agent" for name in TOOLS_BY_AGENT
    }


def test_universal_is_the_only_agent_in_single_agent_mode() -> None:
    assert [*select_team(multi_agent=False)] == ["universal"]
    assert {*select_team(multi_agent=True)} == AGENTS.keys() - {"universal"}


@pytest.mark.parametrize("name", AGENTS)
def test_prompt_has_no_placeholders_and_a_bounded_size(name: str) -> None:
    prompt = AGENTS[name].prompt
    assert not Template(prompt).get_identifiers()
    assert 25 <= len(prompt.splitlines()) <= 60
    assert max(map(len, prompt.splitlines())) <= 120


@pytest.mark.parametrize("name", AGENTS)
def test_prompt_names_only_available_tools_and_agents(name: str) -> None:
    agent = AGENTS[name]
    named = set(re.findall(r"`([a-z_]+)`", agent.prompt))
    assert named <= {*agent.tools, *select_team(multi_agent=True)}
    assert name not in named


def test_classifier_prompt_lists_the_whole_team() -> None:
    prompt = build_classifier_prompt(select_team(multi_agent=True))
    assert re.findall(r"(?m)^- (\w+): ", prompt) == [*select_team(multi_agent=True)]
    assert not Template(prompt).get_identifiers()


FRONT_MATTER = "title: T\ndescription: Does this and that, for a test.\ntools: [read_file]\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("You are an agent.", "front matter"),
        (f"---\n{FRONT_MATTER}", "front matter"),
        (f"---\n{FRONT_MATTER}---\nShort.", "prompt"),
        (f"---\n{FRONT_MATTER}colour: red\n---\nYou are an agent of the team.", "colour"),
        ("---\ntitle: T\ntools: [read_file]\n---\nYou are an agent of the team.", "description"),
        (f"---\n{FRONT_MATTER.replace('[read_file]', '[]')}---\nYou are an agent of the team.", "tools"),
        ("---\ntitle: [\n---\nYou are an agent of the team.", "flow"),
        ("---\n- a\n---\nYou are an agent of the team.", ""),
        (f"---\n{FRONT_MATTER}read_only_commands: perhaps\n---\nYou are an agent of the team.", "read_only_commands"),
        (f"---\n{FRONT_MATTER}temperature: 2.5\n---\nYou are an agent of the team.", "temperature"),
        (f"---\n{FRONT_MATTER}model: ''\n---\nYou are an agent of the team.", "model"),
    ],
)
def test_invalid_agent_file_is_refused_with_its_name_and_fault(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "tester.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load_agent(path)
    assert fault in str(caught.value)


def test_agent_is_loaded_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "tester.md"
    path.write_text(f"---\n{FRONT_MATTER}---\nYou are an agent of the team.\n", encoding="utf-8")
    assert load_agent(path).name == "tester"
    assert load_agent(path).prompt == "You are an agent of the team."


@pytest.mark.parametrize("name", ["permission", "orchestrator"])
def test_name_of_a_graph_node_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.md"
    path.write_text(f"---\n{FRONT_MATTER}---\nYou are an agent of the team.\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"the graph has a node of this name"):
        load_agent(path)


def test_unknown_tool_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tester.md"
    path.write_text(
        f"---\n{FRONT_MATTER.replace('read_file', 'read_flie')}---\nYou are an agent.......\n", encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"tester\.md: there is no tool read_flie; there are read_file, "):
        validate_agent(load_agent(path))


def test_invalid_agent_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Bad-Name.md"
    path.write_text(f"---\n{FRONT_MATTER}---\nYou are an agent of the team.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="name"):
        load_agent(path)


@pytest.mark.parametrize("text", ["Choose.", "Choose of $agent.", "Choose of $agents, for $5.", "$agents or $words"])
def test_template_with_wrong_placeholders_is_refused(text: str) -> None:
    path = Path("classifier.md")
    check_template(path, "Choose of $agents, for $$5.", "agents")
    with pytest.raises(ValueError, match=r"^classifier\.md: write \$agents where it belongs"):
        check_template(path, text, "agents")
