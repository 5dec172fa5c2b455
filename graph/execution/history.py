"""Cut a conversation back to the moment before one of its user messages. Pure."""

from typing import NamedTuple

from langchain_core.messages import AnyMessage, HumanMessage

from graph.context.window import rewind_memory
from graph.marks import TurnStart, turn_start_of
from graph.state import INITIAL_WINDOW, HandoffRecord, State, WindowState, current_agent


class ConversationSnapshot(NamedTuple):
    """The state of a conversation between two turns."""

    messages: list[AnyMessage]
    switches: list[HandoffRecord]
    agent: str
    memory: WindowState = INITIAL_WINDOW


def snapshot_conversation(state: State) -> ConversationSnapshot:
    """Return the conversation as it is now."""
    return ConversationSnapshot(
        state.get("messages", []),
        state.get("switches", []),
        current_agent(state),
        state.get("memory") or INITIAL_WINDOW,
    )


def find_turn_starts(state: State) -> list[int]:
    """Return the places of the user's messages in `messages`; each of them begins a turn."""
    return [place for place, message in enumerate(state.get("messages", [])) if isinstance(message, HumanMessage)]


def snapshot_before(state: State, place: int) -> ConversationSnapshot:
    """Return the conversation as it was before the user's message at `place`.

    The current agent stays if that message does not record its agent.
    """
    now = snapshot_conversation(state)
    before = read_turn_metadata(now.messages[place])
    switches = now.switches[: before["switches"]] if before else now.switches
    return ConversationSnapshot(
        now.messages[:place], switches, before.get("agent", now.agent), rewind_memory(now.memory, place)
    )


def snapshot_after(state: State, turn: int) -> ConversationSnapshot:
    """Return the conversation as it was at the end of a turn. Turns count from 1. Raises IndexError."""
    places = find_turn_starts(state)
    if not 1 <= turn <= len(places):
        raise IndexError(turn)
    return snapshot_before(state, places[turn]) if turn < len(places) else snapshot_conversation(state)


def read_turn_metadata(message: AnyMessage) -> TurnStart:
    """Return the run, the agent and the number of hand-offs that a user's message recorded.

    Empty for messages that older versions stored.
    """
    return turn_start_of(message)
