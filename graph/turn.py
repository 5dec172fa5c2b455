"""One run of the graph: a message goes in, chunks come out, and at the end what is to be remembered of it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END
from langgraph.types import Command, Interrupt, StateSnapshot
from pydantic import BaseModel

from graph import wire
from graph.checkpoint.base import Remembering
from graph.conversation import open_calls, said, to_wire
from graph.permissions.decisions import CANCELLED, cancelled
from graph.state import Switch, holder
from graph.usage import totals


class Graph(Protocol):
    """What the service uses of a compiled graph; `graph/remote.py` has it as well."""

    checkpointer: Any

    def astream(
        self, given: Any, config: RunnableConfig, *, context: wire.StreamOptions, stream_mode: Any, durability: Any
    ) -> AsyncIterator[Any]: ...

    async def aget_state(self, config: RunnableConfig) -> StateSnapshot: ...

    async def aupdate_state(
        self, config: RunnableConfig, values: dict[str, Any] | None, as_node: str | None = None
    ) -> RunnableConfig: ...


RECURSION_LIMIT = 100_000
"""Supersteps; what bounds a turn is `max_model_calls`."""
CLOSING = "closing"
"""In the metadata of a checkpoint: the thread is being laid to rest, and whether its run had taken the message in."""


class OpenCall(BaseModel):
    """A call that a client has to act on, and how it came to be open."""

    call: wire.ToolCall
    agent: str
    rule: str
    reason: str
    created_at: str
    passed: Literal["policy", "grant"] | None = None
    """What agreed in the user's place."""
    always_asks: bool = False


class Pause(BaseModel):
    """What a paused thread waits for. `resume` names the interrupt that an answer goes to."""

    resume: str
    calls: list[OpenCall]


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind; its chunks may be sent only when it is stored."""

    chunks: list[wire.Chunk]
    agent: str
    message_count: int
    switches: list[Switch]
    pause: Pause | None
    head: str | None = None
    """The checkpoint that it is read off."""


@dataclass
class Held:
    """The chunks that must not leave before the thread is durable: they are final, or start something."""

    chunks: list[wire.Chunk] = field(default_factory=list)
    costs: list[wire.Usage] = field(default_factory=list)
    """Of each model call."""

    def take(self, chunk: wire.Chunk) -> bool:
        if isinstance(chunk, wire.Usage):
            self.costs.append(chunk)
            return True
        if chunk.is_final:
            self.chunks.append(chunk)
        return chunk.is_final

    def last(self, options: wire.StreamOptions) -> list[wire.Chunk]:
        chunks = with_last_final(self.chunks)
        return [*chunks[:-1], totals.as_chunk(self.costs), chunks[-1]] if options.usage and chunks else chunks


def with_last_final(chunks: list[wire.Chunk]) -> list[wire.Chunk]:
    return [chunk.model_copy(update={"is_final": chunk is chunks[-1]}) for chunk in chunks]


def config(session_id: str, run_id: str = "") -> RunnableConfig:
    """`run` marks the checkpoints that a run wrote."""
    return {"configurable": {"thread_id": session_id}, "metadata": {"run": run_id}, "recursion_limit": RECURSION_LIMIT}


async def run(
    graph: Graph,
    session_id: str,
    run_id: str,
    message: wire.Message | None,
    options: wire.StreamOptions,
    pause: Pause | None,
    costs: list[wire.Usage],
) -> AsyncIterator[wire.Chunk | Outcome]:
    """Chunks as they come, then the outcome, once everything is durable.

    An answer needs the pause that it answers; no message goes on where the thread stopped. `costs` gets what its model
    calls cost, also of a run that fails.
    """
    held = Held(costs=costs)
    values: dict[str, Any] = {}
    stream: AsyncIterator[Any] = graph.astream(
        _entering(message, pause),
        config(session_id, run_id),
        context=options,
        stream_mode=["custom", "values"],
        durability="exit",
    )
    async for mode, event in stream:
        if mode == "values":
            values = event
            continue
        if isinstance(event, wire.Error) and event.is_final:
            event = event.model_copy(update={"metadata": {**(event.metadata or {}), "request_id": run_id}})
        if not held.take(event):
            yield event
    head = None
    if isinstance(graph.checkpointer, Remembering):
        head = graph.checkpointer.recent.tell(session_id, values.get("messages", []))
    left = outcome(values, values.get("__interrupt__", ()), held.last(options))
    yield replace(left, head=head)


def _entering(message: wire.Message | None, pause: Pause | None) -> Any:
    if message is None:
        return None
    body = message.model_dump(mode="json", exclude_none=True)
    if isinstance(message, wire.UserMessage | wire.SwitchAgent):
        return {"message": body}
    assert pause is not None
    return Command(resume={pause.resume: body})


def outcome(values: dict[str, Any], interrupts: Sequence[Interrupt], chunks: list[wire.Chunk]) -> Outcome:
    return Outcome(
        chunks=chunks,
        agent=holder(values),  # type: ignore[arg-type]
        message_count=len(values.get("messages", [])),
        switches=values.get("switches", []),
        pause=_pause(values, interrupts[0].id) if interrupts else None,
    )


def _pause(values: Any, resume: str) -> Pause:
    return Pause(resume=resume, calls=pending(values))


def pending(values: Any) -> list[OpenCall]:
    """The calls of a thread that a client has to act on."""
    gates = values.get("gates", {})
    return [
        OpenCall(
            call=to_wire(call, gate),
            agent=gate["agent"],
            rule=gate["rule"],
            reason=gate["reason"],
            created_at=gate["created_at"],
            passed=gate.get("passed"),
            always_asks=gate.get("always_asks", False),
        )
        for call in open_calls(values)
        if (gate := gates.get(call["id"]))
    ]


def began(snapshot: StateSnapshot, run_id: str) -> bool:
    """Whether the thread is as this run left it; its very first checkpoint, step -2, is empty and tells nothing."""
    metadata: dict[str, Any] = {**(snapshot.metadata or {})}
    return metadata.get("run") == run_id and metadata.get("step") != -2


def is_over(snapshot: StateSnapshot, run_id: str) -> bool:
    """Whether it is as this run left it when it paused or ended."""
    at_rest = bool(snapshot.interrupts) or not snapshot.next
    return began(snapshot, run_id) and at_rest and not is_closing(snapshot, run_id)


def is_closing(snapshot: StateSnapshot, run_id: str) -> bool:
    """Whether somebody died who laid it to rest after this run."""
    return began(snapshot, run_id) and CLOSING in (snapshot.metadata or {})


async def forget(graph: Graph, session_id: str) -> None:
    """Nothing is left of the thread."""
    await graph.checkpointer.adelete_thread(session_id)


async def stopped(
    graph: Graph,
    config: RunnableConfig,
    message: wire.Message | None = None,
    told: str = CANCELLED,
) -> Outcome:
    """Lay a thread to rest that no run works on: what was open is closed.

    `message` started a run that failed; it is put into the thread if the run did not get that far. `told`: what the
    model reads of each open call.
    """
    run_id = (config.get("metadata") or {}).get("run", "")
    before = await graph.aget_state(config)
    taken_in = _has_taken_in(before, run_id)
    half: RunnableConfig = {**config, "metadata": {"run": run_id, CLOSING: taken_in}}
    await graph.aupdate_state(half, None, as_node=END)  # what nodes wrote that had finished; values would drop it
    left: Any = (await graph.aget_state(config)).values
    content = (left.get("message") or {}).get("content") if taken_in else getattr(message, "content", None)
    messages = [*cancelled(left, told), *([said(content, left, run_id)] if content and content.strip() else [])]
    closing: dict[str, Any] = {"message": None, "messages": messages, "gates": {}, "ended": True}
    await graph.aupdate_state(config, closing, as_node="orchestrator")
    return read_off(await graph.aget_state(config), [])


def _has_taken_in(snapshot: StateSnapshot, run_id: str) -> bool:
    """Whether the run's message is in the thread."""
    if is_closing(snapshot, run_id):
        return bool({**(snapshot.metadata or {})}[CLOSING])
    return began(snapshot, run_id)


def read_off(snapshot: StateSnapshot, chunks: list[wire.Chunk]) -> Outcome:
    head = snapshot.config.get("configurable", {}).get("checkpoint_id")
    return replace(outcome(snapshot.values, snapshot.interrupts, chunks), head=head)
