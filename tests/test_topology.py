"""The graph is what its picture says."""

import re
from pathlib import Path

from langgraph.graph import END, START

from graph.studio import graph
from prompts import AGENTS

README = Path(__file__).parent.parent / "README.md"


def test_the_readme_shows_the_graph_as_it_is() -> None:
    (shown,) = re.findall(r"^```mermaid\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    drawn = graph.get_graph().draw_mermaid().strip()
    assert shown.strip() == drawn, f"the graph has changed; put this into README.md:\n{drawn}"


def test_each_specialist_is_a_box_beside_the_five_that_serve_them() -> None:
    boxes = {START, "orchestrator", *AGENTS, "permission", "approval", "ide", "local", END}
    assert set(graph.get_graph().nodes) == boxes


def test_a_specialist_is_reached_by_the_orchestrator_and_leaves_by_the_gate() -> None:
    edges = {(edge.source, edge.target) for edge in graph.get_graph().edges}
    ways = [{("orchestrator", name), (name, "permission")} for name in AGENTS]
    assert {edge for edge in edges if set(edge) & AGENTS.keys()} == set().union(*ways)


def test_every_box_leads_to_the_end() -> None:
    edges = graph.get_graph().edges
    ending = {END}
    while more := {edge.source for edge in edges if edge.target in ending} - ending:
        ending |= more
    assert ending == set(graph.get_graph().nodes)
