"""Read, rewrite and prune a thread between two runs."""

from typing import Any

from langgraph.types import Overwrite, StateSnapshot

from graph.checkpoint.base import CachingCheckpointer
from graph.checkpoint.pruning import delete_older_checkpoints
from graph.execution.history import ConversationSnapshot
from graph.execution.outcome import Graph, Outcome, outcome_from_snapshot, thread_config


def local_checkpointer(graph: Graph) -> CachingCheckpointer | None:
    """Return the checkpointer of a graph in this process; None if a LangGraph server keeps the threads."""
    checkpointer = graph.checkpointer
    return checkpointer if isinstance(checkpointer, CachingCheckpointer) else None


async def read_thread(graph: Graph, session_id: str, checkpoint_id: str | None) -> StateSnapshot | None:
    """Return the thread at a checkpoint, or at the latest one for None. None if that checkpoint is gone."""
    config = thread_config(session_id)
    if checkpoint_id:
        config["configurable"]["checkpoint_id"] = checkpoint_id
    snapshot = await graph.aget_state(config)
    return None if checkpoint_id and snapshot.created_at is None else snapshot


async def rewrite_thread(graph: Graph, session_id: str, conversation: ConversationSnapshot) -> Outcome:
    """Replace the content of a thread, new or not, by `conversation` and return the outcome.

    The new checkpoint does not depend on earlier ones.
    """
    config = thread_config(session_id)
    update: dict[str, Any] = {
        "message": None,
        "messages": Overwrite([*conversation.messages]),
        "switches": Overwrite([*conversation.switches]),
        "agent": conversation.agent,
        "memory": conversation.memory,
        "gates": {},
        "ended": True,
    }
    await graph.aupdate_state(config, update, as_node="orchestrator")
    if checkpointer := local_checkpointer(graph):
        checkpointer.cache.discard_thread(session_id)
    return outcome_from_snapshot(await graph.aget_state(config), [])


async def prune_thread(graph: Graph, session_id: str, checkpoint_id: str) -> None:
    """Delete all checkpoints before `checkpoint_id`, which must be one that `rewrite_thread` wrote."""
    checkpointer = local_checkpointer(graph)
    assert checkpointer
    await delete_older_checkpoints(checkpointer, session_id, checkpoint_id)
