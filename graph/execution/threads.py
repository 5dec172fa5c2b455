"""What is done to a thread between two runs: reading it as of a moment, writing it anew, dropping what it was."""

from typing import Any

from langgraph.types import Overwrite, StateSnapshot

from graph.checkpoint.base import Remembering
from graph.checkpoint.pruning import keep_only
from graph.execution.history import Past
from graph.execution.outcome import Graph, Outcome, outcome_from_snapshot, thread_config


async def read(graph: Graph, session_id: str, head: str | None) -> StateSnapshot | None:
    """At a checkpoint, or, for None, at the latest one; None if that checkpoint is not there any more."""
    config = thread_config(session_id)
    if head:
        config["configurable"]["checkpoint_id"] = head
    snapshot = await graph.aget_state(config)
    return None if head and snapshot.created_at is None else snapshot


async def rewrite(graph: Graph, session_id: str, past: Past) -> Outcome:
    """The thread, new or not, rests as that conversation; its new checkpoint needs no earlier one."""
    config = thread_config(session_id)
    update: dict[str, Any] = {
        "message": None,
        "messages": Overwrite([*past.messages]),
        "switches": Overwrite([*past.switches]),
        "agent": past.agent,
        "memory": past.memory,
        "gates": {},
        "ended": True,
    }
    await graph.aupdate_state(config, update, as_node="orchestrator")
    if isinstance(graph.checkpointer, Remembering):
        graph.checkpointer.recent.forget(session_id)
    return outcome_from_snapshot(await graph.aget_state(config), [])


async def prune(graph: Graph, session_id: str, head: str) -> None:
    """Drops all that came before a checkpoint that `rewrite` made."""
    assert isinstance(graph.checkpointer, Remembering)
    await keep_only(graph.checkpointer, session_id, head)
