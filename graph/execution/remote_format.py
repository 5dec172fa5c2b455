"""Translate between the service and a LangGraph server: thread ids, requests, states."""

from typing import Any, TypedDict
from uuid import UUID, uuid5

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Durability, Interrupt, Overwrite, StateSnapshot

from graph import wire
from graph.state import Input, convert_to_message

THREAD_NAMESPACE = UUID("5b0f4b1e-6d57-4c0e-9f0e-0c6f3b1f7a52")
"""The namespace of thread ids. It never changes: a session has the same thread for every instance of the service."""


class RemoteRunRequest(TypedDict):
    """The arguments of the SDK's `runs.create`, without the thread and the name of the graph."""

    input: Input | None
    command: dict[str, Any] | None
    config: dict[str, Any]
    metadata: dict[str, str]
    context: dict[str, Any]
    stream_mode: list[str]
    stream_resumable: bool
    durability: Durability
    multitask_strategy: str
    if_not_exists: str


def derive_thread_id(session_id: str) -> str:
    """Return the id of a session's thread on the server, which accepts UUIDs only."""
    return str(uuid5(THREAD_NAMESPACE, session_id))


def get_thread_id(config: RunnableConfig) -> str:
    """Return the id of the thread on the server."""
    return derive_thread_id(config["configurable"]["thread_id"])


def get_run_id(config: RunnableConfig) -> str:
    """Return the id of the service's run; empty if the config names none."""
    return str((config.get("metadata") or {}).get("run", ""))


def build_run_request(
    inputs: Input | Command[Any] | None, config: RunnableConfig, context: wire.StreamOptions, durability: Durability
) -> RemoteRunRequest:
    """Return a request for a run. It interrupts a run that an earlier instance of the service left on the thread."""
    metadata = {"run": get_run_id(config)}
    return {
        "input": None if isinstance(inputs, Command) else inputs,
        "command": {"resume": inputs.resume} if isinstance(inputs, Command) else None,
        "config": {"metadata": metadata, "recursion_limit": config["recursion_limit"]},
        "metadata": metadata,
        "context": context.model_dump(),
        "stream_mode": ["custom"],
        "stream_resumable": True,
        "durability": durability,
        "multitask_strategy": "interrupt",
        "if_not_exists": "create",
    }


def decode_chunk(data: Any) -> wire.Chunk:
    """Return the chunk of a `custom` event, without a proposal of a grant.

    Grants are rows of the service and do not reach the gate on the server, so none may be proposed.
    """
    chunk = wire.CHUNK_ADAPTER.validate_python(data)
    if not isinstance(chunk, wire.ToolCall) or "remember" not in (chunk.metadata or {}):
        return chunk
    metadata = {name: value for name, value in (chunk.metadata or {}).items() if name != "remember"}
    return chunk.model_copy(update={"metadata": metadata})


def decode_snapshot(state: Any, config: RunnableConfig) -> StateSnapshot:
    """Return the snapshot of a thread's state as the server sends it; `{}` stands for a thread that does not exist."""
    interrupts = [interrupt for task in state.get("tasks") or [] for interrupt in task["interrupts"]]
    return StateSnapshot(
        values=_decode_values(state.get("values") or {}),
        next=tuple(state.get("next") or ()),
        config=config,
        metadata=state.get("metadata"),
        created_at=state.get("created_at"),
        parent_config=None,
        tasks=(),
        interrupts=tuple(Interrupt(value=each["value"], id=each["id"]) for each in interrupts),
    )


def _decode_values(values: dict[str, Any]) -> dict[str, Any]:
    gates = {call: {**gate, "always_asks": True} for call, gate in (values.get("gates") or {}).items()}
    return {**values, "messages": [*map(convert_to_message, values.get("messages") or [])], "gates": gates}


def encode_values(values: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a state update as JSON values."""
    if values is None:
        return None
    return {name: _encode_value(value) for name, value in values.items()}


def _encode_value(value: Any) -> Any:
    """Return messages as JSON, and an `Overwrite` in the form that the server reads from JSON."""
    match value:
        case Overwrite():
            return {"__overwrite__": _encode_value(value.value)}
        case [BaseMessage(), *_]:
            return [message.model_dump(mode="json") for message in value]
    return value
