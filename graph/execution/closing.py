"""Close a thread that no run works on, delete it, and read how far a run got."""

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END
from langgraph.types import StateSnapshot

from graph import wire
from graph.conversation import human_message
from graph.execution.outcome import Graph, Outcome, outcome_from_snapshot, read_state
from graph.permissions.decisions import CANCELLED_RESULT, answer_open_calls

CLOSING = "closing"
"""Key in a checkpoint's metadata: the thread is being closed. Its value: whether the thread holds the run's message."""


def has_started(snapshot: StateSnapshot, run_id: str) -> bool:
    """Return whether this run wrote the last checkpoint. Step -2, the very first one, is empty and does not count."""
    metadata: dict[str, Any] = {**(snapshot.metadata or {})}
    return metadata.get("run") == run_id and metadata.get("step") != -2


def is_over(snapshot: StateSnapshot, run_id: str) -> bool:
    """Return whether this run reached a pause or the end of the graph."""
    is_idle = bool(snapshot.interrupts) or not snapshot.next
    return has_started(snapshot, run_id) and is_idle and not is_closing(snapshot, run_id)


def is_closing(snapshot: StateSnapshot, run_id: str) -> bool:
    """Return whether a process died while it closed the thread after this run."""
    return has_started(snapshot, run_id) and CLOSING in (snapshot.metadata or {})


async def delete_thread(graph: Graph, session_id: str) -> None:
    """Delete every checkpoint of the thread."""
    await graph.checkpointer.adelete_thread(session_id)


async def close_thread(
    graph: Graph,
    config: RunnableConfig,
    message: wire.Message | None = None,
    result_text: str = CANCELLED_RESULT,
) -> Outcome:
    """Close the open calls of a thread that no run works on, and return what is left of it.

    `message` started a run that failed; it is added to the thread if the run did not get that far. `result_text` is
    the result of each open call that the model reads.
    """
    run_id = (config.get("metadata") or {}).get("run", "")
    before = await graph.aget_state(config)
    has_message = _has_run_message(before, run_id)
    half_closed: RunnableConfig = {**config, "metadata": {"run": run_id, CLOSING: has_message}}
    await graph.aupdate_state(half_closed, None, as_node=END)  # keeps the writes of finished nodes; values would not
    state = await read_state(graph, config)
    accepted: Any = state.get("message") or {}
    content = accepted.get("content") if has_message else getattr(message, "content", None)
    messages = [
        *answer_open_calls(state, result_text),
        *([human_message(content, state, run_id)] if content and content.strip() else []),
    ]
    closing: dict[str, Any] = {"message": None, "messages": messages, "gates": {}, "ended": True}
    await graph.aupdate_state(config, closing, as_node="orchestrator")
    return outcome_from_snapshot(await graph.aget_state(config), [])


def _has_run_message(snapshot: StateSnapshot, run_id: str) -> bool:
    """Return whether the thread holds the run's message."""
    if is_closing(snapshot, run_id):
        return bool({**(snapshot.metadata or {})}[CLOSING])
    return has_started(snapshot, run_id)
