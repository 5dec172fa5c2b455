"""What is done to a thread between two runs: reading it as of a moment, writing it anew, dropping what it was."""

from typing import Any

from langgraph.types import Overwrite, StateSnapshot

from graph.checkpoint.base import CachingCheckpointer
from graph.checkpoint.pruning import delete_older_checkpoints
from graph.execution.history import ConversationSnapshot
from graph.execution.outcome import Graph, Outcome, outcome_from_snapshot, thread_config


async def read_thread(graph: Graph, session_id: str, checkpoint_id: str | None) -> StateSnapshot | None:
    """At a checkpoint, or, for None, at the latest one; None if that checkpoint is not there any more."""
    config = thread_config(session_id)
    if checkpoint_id:
        config["configurable"]["checkpoint_id"] = checkpoint_id
    snapshot = await graph.aget_state(config)
    return None if checkpoint_id and snapshot.created_at is None else snapshot


async def rewrite_thread(graph: Graph, session_id: str, conversation: ConversationSnapshot) -> Outcome:
    """The thread, new or not, rests as that conversation; its new checkpoint needs no earlier one."""
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
    if isinstance(graph.checkpointer, CachingCheckpointer):
        graph.checkpointer.cache.discard_thread(session_id)
    return outcome_from_snapshot(await graph.aget_state(config), [])


async def prune_thread(graph: Graph, session_id: str, checkpoint_id: str) -> None:
    """Drops all that came before a checkpoint that `rewrite` made."""
    assert isinstance(graph.checkpointer, CachingCheckpointer)
    await delete_older_checkpoints(graph.checkpointer, session_id, checkpoint_id)
