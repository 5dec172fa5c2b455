"""Pause until the IDE has run the tool."""

from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import interrupt

from graph import wire
from graph.conversation import pending_calls
from graph.permissions.decisions import apply_answer
from graph.state import State


async def ide(state: State, runtime: Runtime[wire.StreamOptions]) -> dict[str, Any]:
    said = interrupt([call.model_dump(exclude_none=True) for call in pending_calls(state)])
    return apply_answer(state, said, runtime.stream_writer)
