"""The graph, declared once.

START ─▶ orchestrator ─▶ one node for each specialist ─▶ permission ─▶ END
              ▲                                            │  ▲
              │                                            ▼  │
              │                                 approval · ide · local
              └────── answered, refused, rejected ────────┘

The orchestrator routes to the agent that has the conversation. Permission routes to the node that the open calls need.
"""

from functools import partial

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from graph import wire
from graph.conversation import open_calls
from graph.llm import make_studio_model
from graph.services import Services
from graph.settings import Settings
from graph.state import Input, State, current_agent
from graph.tools.catalog import validate_agent
from graph.usage.meter import with_metering
from nodes.approval import approval
from nodes.ide import ide
from nodes.local import local
from nodes.orchestrator import orchestrator
from nodes.permission import permission
from nodes.specialist import specialist
from prompts import AGENTS


def build_graph(services: Services) -> StateGraph[State, wire.StreamOptions, Input, State]:
    builder = StateGraph(State, input_schema=Input, context_schema=wire.StreamOptions)

    builder.add_node("orchestrator", with_metering(partial(orchestrator, services=services), services.meter))
    for name, agent in AGENTS.items():  # one box for each file of prompts/agents/
        validate_agent(agent)
        builder.add_node(name, with_metering(partial(specialist, agent=agent, services=services), services.meter))
    builder.add_node("permission", partial(permission, gatekeeper=services.gatekeeper))
    builder.add_node("approval", approval)
    builder.add_node("ide", ide)
    builder.add_node("local", local)

    builder.add_edge(START, "orchestrator")
    builder.add_conditional_edges("orchestrator", route_after_orchestrator, [*AGENTS, END])
    for name in AGENTS:
        builder.add_edge(name, "permission")
    builder.add_conditional_edges(
        "permission", route_after_permission, ["approval", "ide", "local", "orchestrator", END]
    )
    for name in ("approval", "ide", "local"):
        builder.add_edge(name, "permission")
    return builder


def route_after_orchestrator(state: State) -> str:
    return END if state["ended"] else current_agent(state)


def route_after_permission(state: State) -> str:
    """Return the next node: local for the service's own calls, then approval, then ide; else the end or an agent."""
    statuses = {state["gates"][call["id"] or ""]["status"] for call in open_calls(state)}
    for status, node in (("local", "local"), ("ask", "approval"), ("sent", "ide")):
        if status in statuses:
            return node
    return END if state["ended"] else "orchestrator"


def __getattr__(name: str) -> CompiledStateGraph[State, wire.StreamOptions, Input, State]:
    """Build `graph` for LangGraph Studio on first use. Studio brings its own checkpointer."""
    if name != "graph":
        raise AttributeError(name)
    settings = Settings()
    return build_graph(Services.from_settings(make_studio_model(settings), settings)).compile()
