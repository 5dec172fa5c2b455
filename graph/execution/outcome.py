"""The outcome of a run, and the reading of it from a thread.

`Graph` and `Outcome` are the seam to `sessions/`, together with the functions of this package.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Durability, Interrupt, StateSnapshot, StreamMode
from pydantic import BaseModel

from graph import wire
from graph.conversation import open_calls, to_wire_call
from graph.state import HandoffRecord, Input, State, current_agent

RECURSION_LIMIT = 100_000
"""Supersteps of one run. LangGraph wants a limit; `max_turn_model_calls` ends every turn long before this one."""


EMPTY_STATE = cast("State", {})
"""The state of a thread without checkpoints."""


class Graph(Protocol):
    """The part of a compiled graph that the service uses. `RemoteGraph` implements it as well."""

    checkpointer: Any
    """The keeper of the threads. `local_checkpointer` and `delete_thread` give typed access to it."""

    def astream(
        self,
        inputs: Input | Command[Any] | None,
        config: RunnableConfig,
        *,
        context: wire.StreamOptions,
        stream_mode: Sequence[StreamMode],
        durability: Durability,
    ) -> AsyncIterator[Any]:
        """Yield pairs of a stream mode and its event."""

    async def aget_state(self, config: RunnableConfig) -> StateSnapshot: ...

    async def aupdate_state(
        self, config: RunnableConfig, values: dict[str, Any] | None, as_node: str | None = None
    ) -> RunnableConfig: ...


class OpenCall(BaseModel):
    """A tool call that a client has to act on, and the reason why it is open."""

    call: wire.ToolCall
    agent: str
    rule: str
    reason: str
    created_at: str
    passed: Literal["policy", "grant"] | None = None
    """The source of an automatic approval."""
    always_asks: bool = False
    """True: an approval of this call cannot be remembered."""


class Pause(BaseModel):
    """The open calls of a paused thread."""

    resume: str
    """Id of the interrupt that an answer resumes."""
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
    """Id of the checkpoint that the outcome was read from."""


def thread_config(session_id: str, run_id: str = "") -> RunnableConfig:
    """Return the config of a session's thread. `run_id` is stored with the checkpoints that the run writes."""
    return {"configurable": {"thread_id": session_id}, "metadata": {"run": run_id}, "recursion_limit": RECURSION_LIMIT}


def state_of(snapshot: StateSnapshot) -> State:
    """Return the state that a snapshot holds. Any channel may be missing, all of them in an empty thread."""
    return cast("State", snapshot.values)


async def read_state(graph: Graph, config: RunnableConfig) -> State:
    """Return the latest state of a thread."""
    return state_of(await graph.aget_state(config))


def mark_last_final(chunks: list[wire.Chunk]) -> list[wire.Chunk]:
    """Return copies of the chunks, of which exactly the last one is final."""
    return [chunk.model_copy(update={"is_final": chunk is chunks[-1]}) for chunk in chunks]


def outcome_from_state(state: State, interrupts: Sequence[Interrupt], chunks: list[wire.Chunk]) -> Outcome:
    """Return the outcome that the state of a thread and its pending interrupts describe."""
    return Outcome(
        chunks=chunks,
        agent=current_agent(state),
        message_count=len(state.get("messages", [])),
        switches=state.get("switches", []),
        pause=Pause(resume=interrupts[0].id, calls=list_open_calls(state)) if interrupts else None,
    )


def outcome_from_snapshot(snapshot: StateSnapshot, chunks: list[wire.Chunk]) -> Outcome:
    """Return the outcome that a snapshot describes, with the id of its checkpoint."""
    checkpoint_id = snapshot.config.get("configurable", {}).get("checkpoint_id")
    return replace(outcome_from_state(state_of(snapshot), snapshot.interrupts, chunks), checkpoint_id=checkpoint_id)


def list_open_calls(state: State) -> list[OpenCall]:
    """Return the tool calls of a thread's state that a client has to act on, in the model's order."""
    gates = state.get("gates", {})
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
        for call in open_calls(state)
        if (gate := gates.get(call["id"] or ""))
    ]
