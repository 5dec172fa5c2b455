"""Pause the graph until a client answers an open call."""

from langgraph.runtime import Runtime
from langgraph.types import interrupt

from graph import wire
from graph.conversation import pending_calls
from graph.permissions.decisions import apply_answer
from graph.state import State, StateUpdate


def pause(state: State, runtime: Runtime[wire.StreamOptions]) -> StateUpdate:
    """Interrupt with the open calls, and return the state update that the client's answer leads to.

    LangGraph runs a node again from its first line when it resumes. So nothing stands before the interrupt.
    """
    answer = interrupt([call.model_dump(exclude_none=True) for call in pending_calls(state)])
    return apply_answer(state, answer, runtime.stream_writer)
