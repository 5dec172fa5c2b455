"""The event log of a run: written by the run, read by any number of streams, each at its own pace."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from graph import wire

DONE = '{"status": "completed"}'
ATTEMPT = 1_000_000
"""Numbers set aside for each attempt at a run, so that no number is used twice."""


class Event(NamedTuple):
    number: int
    name: str
    data: str
    """One line of ASCII JSON."""
    opt_in: str = ""
    """What a reader must have opted in to: tokens, usage or nothing. The others survive a crash."""


@dataclass
class EventLog:
    """Grows while its run goes on, and is forgotten with it; a run is bounded by its model calls."""

    attempt: int = 1
    events: list[Event] = field(default_factory=list)
    closed: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def numbered(self, chunks: Iterable[wire.Chunk]) -> list[Event]:
        """The events that the chunks will be, once they are added."""
        return [self._event(ahead, chunk) for ahead, chunk in enumerate(chunks)]

    def _event(self, ahead: int, chunk: wire.Chunk) -> Event:
        name = "error" if isinstance(chunk, wire.Error) else "message"
        return Event(self._next() + ahead, name, chunk.encoded(), _opt_in(chunk))

    def _next(self) -> int:
        first = (self.attempt - 1) * ATTEMPT + 1
        return max(self.events[-1].number + 1, first) if self.events else first

    def begin(self, attempt: int) -> None:
        """What is added from now on belongs to another attempt."""
        self.attempt = attempt

    def of_attempt(self) -> list[Event]:
        """What has to be told again later: not what readers opt in to, nor what an earlier attempt said."""
        return [each for each in self.events if not each.opt_in and each.number > (self.attempt - 1) * ATTEMPT]

    def add(self, events: Iterable[Event]) -> None:
        self.events.extend(events)
        self._wake()

    def add_later(self, events: Iterable[Event]) -> None:
        """What another replica logged, but for what is known here already."""
        known = self.events[-1].number if self.events else -1
        self.add(
            [
                event if event.number else event._replace(number=self._next())
                for event in events
                if event.number == 0 or event.number > known
            ]
        )

    def close(self) -> None:
        if not self.closed:
            self.events.append(Event(self._next(), "done", DONE))
            self.closed = True
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, after: int, patience: float) -> AsyncIterator[list[Event]]:
        """What comes after number `after`, as it comes; an empty list when nothing came for `patience` seconds."""
        position = next((i for i, event in enumerate(self.events) if event.number > after), len(self.events))
        while True:
            changed = self._changed
            batch = self.events[position:]
            position += len(batch)
            if batch:
                yield batch
            elif self.closed:
                return
            elif await _silent(changed, patience):
                yield []


def _opt_in(chunk: wire.Chunk) -> str:
    if isinstance(chunk, wire.AssistantMessage) and chunk.content is None:
        return "tokens"
    return "usage" if isinstance(chunk, wire.Usage) else ""


async def _silent(changed: asyncio.Event, patience: float) -> bool:
    try:
        await asyncio.wait_for(changed.wait(), patience)
    except TimeoutError:
        return True
    return False
