"""Pause until the user decides on a call. A tool result counts as a decision: that client has asked its user itself."""

from langgraph.runtime import Runtime

from graph import wire
from graph.permissions.pause import pause
from graph.state import State, StateUpdate


async def approval(state: State, runtime: Runtime[wire.StreamOptions]) -> StateUpdate:
    return pause(state, runtime)
