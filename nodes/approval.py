"""Pause until a human has decided. A tool result decides as well: then the client has asked its user itself."""

from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import interrupt

from graph import wire
from graph.permissions.decisions import settled
from graph.state import State, pending_calls


async def approval(state: State, runtime: Runtime[wire.StreamOptions]) -> dict[str, Any]:
    said = interrupt([call.model_dump(exclude_none=True) for call in pending_calls(state)])
    return settled(state, said, runtime.stream_writer)
