"""The graph has the nodes and edges of its picture."""

import re

from langgraph.graph import END, START

from graph.studio import graph
from prompts import AGENTS
from tests.support.paths import PROJECT_ROOT

README = PROJECT_ROOT / "README.md"


def test_readme_shows_the_current_graph() -> None:
    (shown,) = re.findall(r"^```mermaid\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    drawn = graph.get_graph().draw_mermaid().strip()
    assert shown.strip() == drawn, "the graph has changed: run `make picture`"


def test_nodes_are_the_specialists_and_the_five_service_nodes() -> None:
    boxes = {START, "orchestrator", *AGENTS, "permission", "approval", "ide", "local", END}
    assert set(graph.get_graph().nodes) == boxes


def test_specialist_follows_orchestrator_and_leads_to_permission() -> None:
    edges = {(edge.source, edge.target) for edge in graph.get_graph().edges}
    ways = [{("orchestrator", name), (name, "permission")} for name in AGENTS]
    assert {edge for edge in edges if set(edge) & AGENTS.keys()} == set().union(*ways)


def test_every_node_leads_to_the_end() -> None:
    edges = graph.get_graph().edges
    ending = {END}
    while more := {edge.source for edge in edges if edge.target in ending} - ending:
        ending |= more
    assert ending == set(graph.get_graph().nodes)
