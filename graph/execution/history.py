"""What a conversation was before a message of its user. Pure."""

from typing import Any, NamedTuple

from langchain_core.messages import AnyMessage, HumanMessage

from graph.context.window import carried
from graph.state import FRESH, Memory, State, Switch, holder


class Past(NamedTuple):
    """A conversation at rest."""

    messages: list[AnyMessage]
    switches: list[Switch]
    agent: str
    memory: Memory = FRESH


def present(state: State) -> Past:
    return Past(state.get("messages", []), state.get("switches", []), holder(state), state.get("memory") or FRESH)


def turns(state: State) -> list[int]:
    """Where the messages of the user stand, which a turn begins with each."""
    return [place for place, message in enumerate(state.get("messages", [])) if isinstance(message, HumanMessage)]


def before(state: State, place: int) -> Past:
    """As the user's message at that place found it; the agent stays who it is if that message does not tell."""
    now = present(state)
    found = about(now.messages[place])
    switches = now.switches[: found["switches"]] if found else now.switches
    return Past(now.messages[:place], switches, found.get("agent", now.agent), carried(now.memory, place))


def after(state: State, turn: int) -> Past:
    """As it was when the turn of that number, from 1, was over. Raises IndexError."""
    places = turns(state)
    if not 1 <= turn <= len(places):
        raise IndexError(turn)
    return before(state, places[turn]) if turn < len(places) else present(state)


def about(message: AnyMessage) -> dict[str, Any]:
    """What a message of the user found; empty for those of older versions."""
    found: dict[str, Any] = message.additional_kwargs.get("found", {})
    return found
