"""Pause until the IDE returns the result of a call."""

from langgraph.runtime import Runtime

from graph import wire
from graph.permissions.pause import pause
from graph.state import State, StateUpdate


async def ide(state: State, runtime: Runtime[wire.StreamOptions]) -> StateUpdate:
    return pause(state, runtime)
