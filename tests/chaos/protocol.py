"""The rules of every conversation in OpenAI's format, in a history as in a request."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Message = Mapping[str, Any]


class Marker(NamedTuple):
    """The beginning of a turn's first message; it shows the session and the turn of each text."""

    session: str
    turn: int

    def __str__(self) -> str:
        return f"[{self.session}#{self.turn}]"


def parse_marker(content: str) -> Marker | None:
    found = re.match(r"\[([\w.-]+)#(\d+)\]", content)
    return Marker(found[1], int(found[2])) if found else None


def find_faults(messages: Sequence[Message]) -> Iterator[str]:
    """Yield a sentence for each broken rule. `messages` do not include the system prompt."""
    known: set[str] = set()
    waiting: set[str] = set()
    if messages and messages[0]["role"] != "user":
        yield f"the first message is the {messages[0]['role']}'s"
    for place, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                yield f"message {place} answers {message['tool_call_id']}, which is not open"
            waiting.discard(message["tool_call_id"])
            continue
        if waiting:
            yield f"message {place} comes before the answer to {', '.join(sorted(waiting))}"
        waiting = {call["id"] for call in message.get("tool_calls") or ()}
        if again := waiting & known:
            yield f"message {place} has the id of an earlier call, {', '.join(sorted(again))}"
        known |= waiting


def find_unanswered(messages: Sequence[Message]) -> set[str]:
    asked = {call["id"] for message in messages for call in message.get("tool_calls") or ()}
    return asked - {message["tool_call_id"] for message in messages if message["role"] == "tool"}
