"""The outcome of a run, and how it is read from a thread."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.types import Interrupt, StateSnapshot
from pydantic import BaseModel

from graph import wire
from graph.conversation import open_calls, to_wire_call
from graph.state import HandoffRecord, current_agent

RECURSION_LIMIT = 100_000
"""Supersteps. High enough never to matter: `max_model_calls` limits a turn."""


class Graph(Protocol):
    """The part of a compiled graph that the service uses; `graph/execution/remote.py` implements it as well."""

    checkpointer: Any

    def astream(
        self, inputs: Any, config: RunnableConfig, *, context: wire.StreamOptions, stream_mode: Any, durability: Any
    ) -> AsyncIterator[Any]: ...

    async def aget_state(self, config: RunnableConfig) -> StateSnapshot: ...

    async def aupdate_state(
        self, config: RunnableConfig, values: dict[str, Any] | None, as_node: str | None = None
    ) -> RunnableConfig: ...


class OpenCall(BaseModel):
    """A tool call that a client has to act on, and why it is open."""

    call: wire.ToolCall
    agent: str
    rule: str
    reason: str
    created_at: str
    passed: Literal["policy", "grant"] | None = None
    """The source of an automatic approval."""
    always_asks: bool = False


class Pause(BaseModel):
    """The open calls of a paused thread. `resume` is the id of the interrupt that an answer resumes."""

    resume: str
    calls: list[OpenCall]


@dataclass(frozen=True)
class Outcome:
    """The result of a run. Its chunks may be sent only after it is stored."""

    chunks: list[wire.Chunk]
    agent: str
    message_count: int
    switches: list[HandoffRecord]
    pause: Pause | None
    checkpoint_id: str | None = None
    """Id of the checkpoint that it was read from."""


def thread_config(session_id: str, run_id: str = "") -> RunnableConfig:
    """Return the config of a session's thread. `run_id` is stored with the checkpoints that the run writes."""
    return {"configurable": {"thread_id": session_id}, "metadata": {"run": run_id}, "recursion_limit": RECURSION_LIMIT}


def mark_last_final(chunks: list[wire.Chunk]) -> list[wire.Chunk]:
    """Return copies of the chunks, of which exactly the last one is final."""
    return [chunk.model_copy(update={"is_final": chunk is chunks[-1]}) for chunk in chunks]


def outcome_from_values(values: dict[str, Any], interrupts: Sequence[Interrupt], chunks: list[wire.Chunk]) -> Outcome:
    """Return the outcome that the state of a thread and its pending interrupts describe."""
    return Outcome(
        chunks=chunks,
        agent=current_agent(values),  # type: ignore[arg-type]
        message_count=len(values.get("messages", [])),
        switches=values.get("switches", []),
        pause=Pause(resume=interrupts[0].id, calls=list_open_calls(values)) if interrupts else None,
    )


def outcome_from_snapshot(snapshot: StateSnapshot, chunks: list[wire.Chunk]) -> Outcome:
    """Return the outcome that a snapshot describes, with the id of its checkpoint."""
    checkpoint_id = snapshot.config.get("configurable", {}).get("checkpoint_id")
    return replace(outcome_from_values(snapshot.values, snapshot.interrupts, chunks), checkpoint_id=checkpoint_id)


def list_open_calls(values: Any) -> list[OpenCall]:
    """Return the tool calls of a thread's state that a client has to act on, in the model's order."""
    gates = values.get("gates", {})
    return [
        OpenCall(
            call=to_wire_call(call, gate),
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
