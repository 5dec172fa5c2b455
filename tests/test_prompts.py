"""The team's files: what each agent may do, and that a file which cannot work is refused."""

import re
from pathlib import Path
from string import Template

import pytest

from graph.routing.classifier import build_classifier_prompt
from graph.tools.catalog import TOOLS, validate_agent
from prompts import AGENTS, CLASSIFIER, check_template, load_agent, select_team

READING = {"read_file", "list_files", "search_in_code"}
IDE = READING | {"write_file", "create_directory", "execute_command"}
ENDING = {"attempt_completion", "ask_followup_question"}
SPECIALIST = {"switch_mode", "calculator"}

TABLE = {
    "orchestrator": READING,
    "coder": IDE | ENDING | SPECIALIST | {"echo"},
    "architect": READING | {"write_file"} | ENDING | SPECIALIST,
    "debug": READING | {"execute_command"} | ENDING | SPECIALIST,
    "ask": READING | {"attempt_completion"} | SPECIALIST,
    "universal": IDE | ENDING | {"calculator", "echo"},
}


def test_the_team_has_the_tools_of_the_contract() -> None:
    tools = {agent.name: set(agent.tools) for agent in [CLASSIFIER, *AGENTS.values()]}
    assert {name: tools[name] for name in TABLE} == TABLE
    assert all(len(set(agent.tools)) == len(agent.tools) for agent in AGENTS.values())
    assert set().union(*TABLE.values()) == TOOLS.keys()


def test_the_team_has_the_limits_of_the_contract() -> None:
    limits = {name: (AGENTS[name].may_write, AGENTS[name].read_only_commands) for name in TABLE.keys() & AGENTS.keys()}
    everything = (("*",), False)
    assert limits == {
        "architect": (("*.md",), False),
        "ask": everything,
        "coder": everything,
        "debug": (("*",), True),
        "universal": everything,
    }


def test_titles() -> None:
    titles = {agent.name: agent.title for agent in [CLASSIFIER, *AGENTS.values()]}
    assert {name: titles[name] for name in TABLE} == {name: f"{name.capitalize()} Agent" for name in TABLE}


def test_universal_stands_alone() -> None:
    assert [*select_team(multi_agent=False)] == ["universal"]
    assert {*select_team(multi_agent=True)} == AGENTS.keys() - {"universal"}


@pytest.mark.parametrize("name", AGENTS)
def test_a_prompt_is_ready_to_be_sent(name: str) -> None:
    prompt = AGENTS[name].prompt
    assert not Template(prompt).get_identifiers()
    assert 25 <= len(prompt.splitlines()) <= 60
    assert max(map(len, prompt.splitlines())) <= 120


@pytest.mark.parametrize("name", AGENTS)
def test_a_prompt_names_no_tool_and_no_colleague_that_its_agent_has_not(name: str) -> None:
    agent = AGENTS[name]
    named = set(re.findall(r"`([a-z_]+)`", agent.prompt))
    assert named <= {*agent.tools, *select_team(multi_agent=True)}
    assert name not in named


def test_the_classifier_s_prompt_lists_the_team_and_leaves_nothing_open() -> None:
    prompt = build_classifier_prompt(select_team(multi_agent=True))
    assert re.findall(r"(?m)^- (\w+): ", prompt) == [*select_team(multi_agent=True)]
    assert not Template(prompt).get_identifiers()


HEAD = "title: T\ndescription: Does this and that, for a test.\ntools: [read_file]\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("You are an agent.", "front matter"),
        (f"---\n{HEAD}", "front matter"),
        (f"---\n{HEAD}---\nShort.", "prompt"),
        (f"---\n{HEAD}colour: red\n---\nYou are an agent of the team.", "colour"),
        ("---\ntitle: T\ntools: [read_file]\n---\nYou are an agent of the team.", "description"),
        (f"---\n{HEAD.replace('[read_file]', '[]')}---\nYou are an agent of the team.", "tools"),
        ("---\ntitle: [\n---\nYou are an agent of the team.", "flow"),
        ("---\n- a\n---\nYou are an agent of the team.", ""),
        (f"---\n{HEAD}read_only_commands: perhaps\n---\nYou are an agent of the team.", "read_only_commands"),
        (f"---\n{HEAD}temperature: 2.5\n---\nYou are an agent of the team.", "temperature"),
        (f"---\n{HEAD}model: ''\n---\nYou are an agent of the team.", "model"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_fault(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "tester.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load_agent(path)
    assert fault in str(caught.value)


def test_a_file_is_an_agent(tmp_path: Path) -> None:
    path = tmp_path / "tester.md"
    path.write_text(f"---\n{HEAD}---\nYou are an agent of the team.\n", encoding="utf-8")
    assert load_agent(path).name == "tester"
    assert load_agent(path).prompt == "You are an agent of the team."


@pytest.mark.parametrize("name", ["permission", "orchestrator"])
def test_a_name_of_the_graph_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.md"
    path.write_text(f"---\n{HEAD}---\nYou are an agent of the team.\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"the graph has a box of this name"):
        load_agent(path)


def test_a_tool_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tester.md"
    path.write_text(f"---\n{HEAD.replace('read_file', 'read_flie')}---\nYou are an agent.......\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tester\.md: there is no tool read_flie; there are read_file, "):
        validate_agent(load_agent(path))


def test_a_bad_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Bad-Name.md"
    path.write_text(f"---\n{HEAD}---\nYou are an agent of the team.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="name"):
        load_agent(path)


@pytest.mark.parametrize("text", ["Choose.", "Choose of $agent.", "Choose of $agents, for $5.", "$agents or $words"])
def test_a_text_without_its_placeholder_or_with_another_is_refused(text: str) -> None:
    path = Path("classifier.md")
    check_template(path, "Choose of $agents, for $$5.", "agents")
    with pytest.raises(ValueError, match=r"^classifier\.md: write \$agents where it belongs"):
        check_template(path, text, "agents")
