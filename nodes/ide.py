"""Pause until the IDE returns the result of a call."""

from typing import Any

from langgraph.runtime import Runtime

from graph import wire
from graph.permissions.pause import pause
from graph.state import State


async def ide(state: State, runtime: Runtime[wire.StreamOptions]) -> dict[str, Any]:
    return pause(state, runtime)
