"""The graph, declared once.

START ─▶ orchestrator ─▶ coder · architect · debug · ask · universal ─▶ permission ─▶ END
              ▲                                                          │  ▲
              │                                                          ▼  │
              │                                               approval · ide · local
              └──────────── answered, refused, rejected ────────────────┘

The orchestrator leads to whoever holds the conversation; permission leads to whoever has to deal with the open calls.
"""

from functools import partial

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from graph import wire
from graph.conversation import open_calls
from graph.llm import studio_model
from graph.services import Services
from graph.settings import Settings
from graph.state import Inbox, State, holder
from graph.tools.catalog import check
from graph.usage.meter import metered
from nodes.approval import approval
from nodes.ide import ide
from nodes.local import local
from nodes.orchestrator import orchestrator
from nodes.permission import permission
from nodes.specialist import specialist
from prompts import AGENTS


def topology(services: Services) -> StateGraph[State, wire.StreamOptions, Inbox, State]:
    builder = StateGraph(State, input_schema=Inbox, context_schema=wire.StreamOptions)

    builder.add_node("orchestrator", metered(partial(orchestrator, services=services), services.meter))
    for name, agent in AGENTS.items():  # one box for each file of prompts/agents/
        check(agent)
        builder.add_node(name, metered(partial(specialist, agent=agent, services=services), services.meter))
    builder.add_node("permission", partial(permission, gatekeeper=services.gatekeeper))
    builder.add_node("approval", approval)
    builder.add_node("ide", ide)
    builder.add_node("local", local)

    builder.add_edge(START, "orchestrator")
    builder.add_conditional_edges("orchestrator", chosen, [*AGENTS, END])
    for name in AGENTS:
        builder.add_edge(name, "permission")
    builder.add_conditional_edges("permission", permitted, ["approval", "ide", "local", "orchestrator", END])
    for name in ("approval", "ide", "local"):
        builder.add_edge(name, "permission")
    return builder


def chosen(state: State) -> str:
    return END if state["ended"] else holder(state)


def permitted(state: State) -> str:
    """The service's own calls first, then what a human decides, then what the IDE runs."""
    statuses = {state["gates"][call["id"] or ""]["status"] for call in open_calls(state)}
    for status, node in (("local", "local"), ("ask", "approval"), ("sent", "ide")):
        if status in statuses:
            return node
    return END if state["ended"] else "orchestrator"


def __getattr__(name: str) -> CompiledStateGraph[State, wire.StreamOptions, Inbox, State]:
    """`graph`, for LangGraph Studio, which brings its own checkpointer; made when it is asked for."""
    if name != "graph":
        raise AttributeError(name)
    settings = Settings()
    return topology(Services.of(studio_model(settings), settings)).compile()
