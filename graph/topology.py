"""The graph, declared once.

START ─▶ orchestrator ─▶ coder · architect · debug · ask · universal ─▶ permission ─▶ END
              ▲                                                          │  ▲
              │                                                          ▼  │
              │                                               approval · ide · local
              └──────────── answered, refused, rejected ────────────────┘

The orchestrator leads to whoever holds the conversation; permission leads to whoever has to deal with the open calls.
"""

from functools import partial
from typing import Any

from langchain_core.language_models import BaseChatModel
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from graph import wire
from graph.ahead import Ahead
from graph.budgets import Budgets
from graph.classifications import Classifications
from graph.gate import Gatekeeper
from graph.llm import studio_model
from graph.memories import Memories
from graph.meter import Meter, metered
from graph.settings import Settings
from graph.state import Inbox, State, holder, open_calls
from graph.tools import check
from nodes.approval import approval
from nodes.ide import ide
from nodes.local import local
from nodes.orchestrator import orchestrator
from nodes.permission import permission
from nodes.specialist import specialist
from prompts import AGENTS, team


def topology(
    llm: BaseChatModel,
    settings: Settings,
    gatekeeper: Gatekeeper | None = None,
    memories: Memories | None = None,
    known: Classifications | None = None,
) -> StateGraph[State, wire.StreamOptions, Inbox, State]:
    known = known or Classifications(settings)
    gatekeeper = gatekeeper or Gatekeeper(settings.policy_file)
    memories = memories or Memories(llm, settings.context_tokens)
    memories.check(AGENTS)
    budgets, meter, ahead = Budgets(settings), Meter(settings), Ahead()
    builder = StateGraph(State, input_schema=Inbox, context_schema=wire.StreamOptions)

    shared: dict[str, Any] = {"llm": llm, "budgets": budgets, "memories": memories}
    team_now, guesses = team(settings.multi_agent_mode), ahead if settings.speculative_routing else None
    choose = partial(orchestrator, team=team_now, known=known, ahead=guesses, **shared)
    work = partial(specialist, gatekeeper=gatekeeper, tool_calls=settings.max_tool_calls, ahead=ahead, **shared)
    builder.add_node("orchestrator", metered(choose, meter))
    for name, agent in AGENTS.items():  # one box for each file of prompts/agents/
        check(agent)
        builder.add_node(name, metered(partial(work, agent=agent), meter))
    builder.add_node("permission", partial(permission, gatekeeper=gatekeeper))
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
    return topology(studio_model(settings), settings).compile()
