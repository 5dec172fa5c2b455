"""Pause until the user decides on a call. A tool result counts as a decision: that client has asked its user itself."""

from typing import Any

from langgraph.runtime import Runtime

from graph import wire
from graph.permissions.pause import pause
from graph.state import State


async def approval(state: State, runtime: Runtime[wire.StreamOptions]) -> dict[str, Any]:
    return pause(state, runtime)
