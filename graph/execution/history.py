"""What a conversation was before a message of its user. Pure."""

from typing import Any, NamedTuple

from langchain_core.messages import AnyMessage, HumanMessage

from graph.context.window import rewind_memory
from graph.state import INITIAL_WINDOW, HandoffRecord, State, WindowState, current_agent


class ConversationSnapshot(NamedTuple):
    """A conversation at rest."""

    messages: list[AnyMessage]
    switches: list[HandoffRecord]
    agent: str
    memory: WindowState = INITIAL_WINDOW


def snapshot_conversation(state: State) -> ConversationSnapshot:
    return ConversationSnapshot(
        state.get("messages", []),
        state.get("switches", []),
        current_agent(state),
        state.get("memory") or INITIAL_WINDOW,
    )


def find_turn_starts(state: State) -> list[int]:
    """Where the messages of the user stand, which a turn begins with each."""
    return [place for place, message in enumerate(state.get("messages", [])) if isinstance(message, HumanMessage)]


def snapshot_before(state: State, place: int) -> ConversationSnapshot:
    """As the user's message at that place found it; the agent stays who it is if that message does not tell."""
    now = snapshot_conversation(state)
    found = read_turn_metadata(now.messages[place])
    switches = now.switches[: found["switches"]] if found else now.switches
    return ConversationSnapshot(
        now.messages[:place], switches, found.get("agent", now.agent), rewind_memory(now.memory, place)
    )


def snapshot_after(state: State, turn: int) -> ConversationSnapshot:
    """As it was when the turn of that number, from 1, was over. Raises IndexError."""
    places = find_turn_starts(state)
    if not 1 <= turn <= len(places):
        raise IndexError(turn)
    return snapshot_before(state, places[turn]) if turn < len(places) else snapshot_conversation(state)


def read_turn_metadata(message: AnyMessage) -> dict[str, Any]:
    """What a message of the user found; empty for those of older versions."""
    found: dict[str, Any] = message.additional_kwargs.get("found", {})
    return found
