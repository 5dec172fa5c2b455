"""Run the graph once: a message goes in, chunks and an outcome come out."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

from langgraph.types import Command

from graph import wire
from graph.execution.outcome import Graph, Outcome, Pause, mark_last_final, outcome_from_state, thread_config
from graph.execution.threads import local_checkpointer
from graph.state import Input, State
from graph.usage import totals


@dataclass
class FinalChunks:
    """The chunks that must not be sent before the thread is durable: they are final, or start something."""

    chunks: list[wire.Chunk] = field(default_factory=list)
    costs: list[wire.Usage] = field(default_factory=list)
    """One entry for each model call."""

    def keep_chunk(self, chunk: wire.Chunk) -> bool:
        """Keep the chunk if it must wait; return whether it was kept."""
        if isinstance(chunk, wire.Usage):
            self.costs.append(chunk)
            return True
        if chunk.is_final:
            self.chunks.append(chunk)
        return chunk.is_final

    def finalize_chunks(self, options: wire.StreamOptions) -> list[wire.Chunk]:
        """Return the kept chunks, the last one final, with the usage before it if the client opted in."""
        chunks = mark_last_final(self.chunks)
        return [*chunks[:-1], totals.usage_chunk(self.costs), chunks[-1]] if options.usage and chunks else chunks


async def run_graph(
    graph: Graph,
    session_id: str,
    run_id: str,
    message: wire.Message | None,
    options: wire.StreamOptions,
    pause: Pause | None,
    costs: list[wire.Usage],
) -> AsyncIterator[wire.Chunk | Outcome]:
    """Yield chunks as they come, then the outcome, once everything is durable.

    An answer needs the `pause` that it answers. Without a message the run continues where the thread stopped. The usage
    of each model call is appended to `costs`, also by a run that fails.
    """
    final = FinalChunks(costs=costs)
    values: dict[str, Any] = {}
    stream: AsyncIterator[Any] = graph.astream(
        _build_graph_input(message, pause),
        thread_config(session_id, run_id),
        context=options,
        stream_mode=["custom", "values"],
        durability="exit",  # the stored message can be run again: one checkpoint, at the end, is enough
    )
    async for mode, event in stream:
        if mode == "values":
            values = event
            continue
        if isinstance(event, wire.Error) and event.is_final:
            event = event.model_copy(update={"metadata": {**(event.metadata or {}), "request_id": run_id}})
        if not final.keep_chunk(event):
            yield event
    checkpoint_id = None
    if checkpointer := local_checkpointer(graph):
        checkpoint_id = checkpointer.cache.record_messages(session_id, values.get("messages", []))
    interrupts = values.get("__interrupt__", ())
    outcome = outcome_from_state(cast("State", values), interrupts, final.finalize_chunks(options))
    yield replace(outcome, checkpoint_id=checkpoint_id)


def _build_graph_input(message: wire.Message | None, pause: Pause | None) -> Input | Command[Any] | None:
    """Return the graph's input for a new message, a resume command for an answer, or None to continue."""
    if message is None:
        return None
    body = message.model_dump(mode="json", exclude_none=True)
    if isinstance(message, wire.UserMessage | wire.SwitchAgent):
        return {"message": body}
    assert pause is not None
    return Command(resume={pause.resume: body})
