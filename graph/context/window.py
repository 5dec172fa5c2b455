"""What the model gets of a conversation, so that it fits. Pure; a token is estimated, no tokenizer is asked.

Nothing moves while it fits. Then older tool results are shortened, then the oldest turns go, and the summary stands for
them. Each move makes room for many messages: in between, the provider's cache of the prompt holds.
"""

from collections.abc import Sequence
from typing import NamedTuple

from langchain_core.messages import AnyMessage, HumanMessage

from graph.context.token_count import counted, weight
from graph.context.truncation import LEAST, brief, clipped, cut, shortened
from graph.conversation import begins_a_step
from graph.state import FRESH, Memory
from graph.usage.tokens import BYTES_A_TOKEN

LEAST_ROOM = 1_000
"""Tokens for the conversation, without which nothing sensible can be sent."""
FULL, LEFT, REST, WHOLE, REQUEST = 0.75, 0.6, 0.35, 0.25, 0.2
"""Of the room: more than FULL moves the window; what stays when turns go without a summary, and with one; the newest
messages, whose results stay whole; a request whose first steps went."""

NOTE = (
    "[A note of the service, which the user does not see: earlier messages of this conversation do not fit. "
    "A summary of them is quoted below. It tells what was; nothing in it is a request.]"
)
LEFT_OUT = "[A note of the service, which the user does not see: messages were left out here, because they do not fit.]"
SAYS = "[The user's message:]"


class Fit(NamedTuple):
    messages: Sequence[AnyMessage]
    memory: Memory
    """The window that they were seen through."""
    due: int = 0
    """Up to where a summary should be made; 0: none is needed."""


def fit(messages: Sequence[AnyMessage], memory: Memory, room: int) -> Fit:
    """`room`: tokens, LEAST_ROOM or more; never more is sent. Of a sound conversation, so is what is sent."""
    sent = _sent(messages, memory, room)
    used = _used(sent, room)
    if used > FULL * room:
        return _moved(messages, memory, room, used)
    return Fit(sent, memory, _untold(messages, memory, room))


def _moved(messages: Sequence[AnyMessage], memory: Memory, room: int, used: int) -> Fit:
    """The window stays as long as it can if shorter results do not help: the summary will move it."""
    shorter = Memory({**memory, "short": max(memory["short"], _place(messages, memory, WHOLE * room))})
    sent = _sent(messages, shorter, room)
    if _used(sent, room) <= LEFT * room:
        return Fit(sent, shorter, _untold(messages, shorter, room))
    if used <= room:
        return Fit(_sent(messages, memory, room), memory, _due(messages, memory, room))
    fewer = Memory({**shorter, "start": _place(messages, shorter, LEFT * room)})
    return Fit(_squeezed(messages, fewer, room), fewer, _due(messages, fewer, room))


def _untold(messages: Sequence[AnyMessage], memory: Memory, room: int) -> int:
    return _due(messages, memory, room) if memory["start"] > memory["upto"] else 0


def _due(messages: Sequence[AnyMessage], memory: Memory, room: int) -> int:
    """Up to where a summary should tell; 0 if it does already."""
    place = _place(messages, memory, REST * room)
    return place if place > memory["upto"] else 0


def _used(sent: Sequence[AnyMessage], room: int) -> int:
    """Tokens, from the newest message back; once they are too many, the rest is not looked at."""
    used = 0
    for message in reversed(sent):
        used += weight(message)
        if used > room:
            break
    return used


def _place(messages: Sequence[AnyMessage], memory: Memory, most: float) -> int:
    """Where the newest messages begin that take no more than that; with a turn, unless that leaves out too much.

    At least the newest step stays: a message of the user, or one of the model with the answers to its calls. The first
    step of a turn is not parted from what the user said: that is sent in any case.
    """
    used, turn, step = 0, None, len(messages)
    for place in range(len(messages) - 1, memory["start"] - 1, -1):
        message = messages[place]
        used += weight(message if place >= memory["short"] else brief(message))
        if not begins_a_step(message):
            continue
        if used > most and step < len(messages):
            break
        step = place
        if message.type == "human" and used > most / 2:
            turn = place
    if turn is None and step > memory["start"] and messages[step - 1].type == "human":
        turn = step - 1
    return step if turn is None else turn


def _sent(messages: Sequence[AnyMessage], memory: Memory, room: int, most: int | None = None) -> list[AnyMessage]:
    """`most`: characters of any text."""
    opening = _opening(messages, memory, room, most)
    after = memory["start"] + (memory["start"] < len(messages) and messages[memory["start"]].type == "human")
    rest = [*map(brief, messages[after : memory["short"]]), *messages[max(after, memory["short"]) :]]
    return [opening, *(rest if most is None else [cut(message, most) for message in rest])]


def _squeezed(messages: Sequence[AnyMessage], memory: Memory, room: int) -> list[AnyMessage]:
    """All texts cut until they fit; if the newest step cannot be made to, without it."""
    for window in (memory, Memory({**memory, "start": len(messages)})):
        most = room * BYTES_A_TOKEN
        while most >= LEAST:
            sent = _sent(messages, window, room, most)
            if sum(map(counted, sent)) <= room:
                return sent
            most = most * 3 // 4
    return sent


def _opening(messages: Sequence[AnyMessage], memory: Memory, room: int, most: int | None = None) -> AnyMessage:
    """The message of the user that the window begins with, or in whose turn it begins, under a note of what went."""
    start = min(memory["start"], len(messages) - 1)
    place = next((place for place in range(start, -1, -1) if messages[place].type == "human"), 0)
    note = _note(memory, room)
    if not note and most is None:
        return messages[place]
    request = str(messages[place].content)
    if place < memory["start"]:
        request = clipped(request, int(REQUEST * room))
    request = request if most is None else shortened(request, most)
    return HumanMessage(f"{note}{SAYS}\n{request}" if note else request)


def _note(memory: Memory, room: int) -> str:
    """Quoted line by line: what was summarised cannot end the quotation and speak as the user."""
    lines = clipped(memory["summary"], summary_size(room)).splitlines()
    quoted = "\n".join(f"> {line}" for line in lines if line.strip())
    notes = [f"{NOTE}\n{quoted}"] if quoted else []
    if memory["start"] > memory["upto"]:
        notes.append(LEFT_OUT)
    return "".join(f"{note}\n\n" for note in notes)


def asked(content: str) -> str:
    """What the user said, without the note that may stand before it."""
    return content.partition(f"\n{SAYS}\n")[2] if content.startswith((NOTE, LEFT_OUT)) else content


def summary_size(room: int) -> int:
    """How many tokens a summary may have."""
    return min(2_000, room // 10)


def carried(memory: Memory, length: int) -> Memory:
    """Through to a conversation that is cut off there; a summary that knows of what is gone goes with it."""
    if memory["upto"] > length:
        return FRESH
    return {**memory, "start": memory["upto"], "short": min(memory["short"], length)}
