"""The event log of a run: written by the run, read by any number of streams, each at its own pace."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from secrets import randbelow
from typing import NamedTuple

from graph import wire

TOKENS = "tokens"
DONE = '{"status": "completed"}'
ATTEMPT = 1_000_000
"""Numbers set aside for each attempt at a run, so that no number is used twice."""
EVENTS = 20_000
CHARACTERS = 8_000_000
"""What a run's log holds of tokens; what must survive a crash is bounded by the run's limits."""


class TooSlow(Exception):
    """A reader is so far behind that the log has let go of what comes next; it can resume."""


class Event(NamedTuple):
    number: int
    name: str
    data: str
    """One line of ASCII JSON."""
    opt_in: str = ""
    """What a reader must have opted in to: tokens, usage or nothing. The others survive a crash."""


@dataclass
class EventLog:
    """Grows while its run goes on, and is forgotten with it. The run never waits for a reader."""

    attempt: int = 1
    stored: int = 1
    """The attempt that the database knows of."""
    events: list[Event] = field(default_factory=list)
    closed: bool = False
    dropped: int = 0
    """The highest number that it has let go of."""
    _tokens: int = 0
    _size: int = 0
    """Of the tokens, how many and how many characters."""
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

    def begin(self, attempt: int, stored: int) -> None:
        """What is added from now on belongs to another attempt; the database knows of `stored`."""
        self.attempt, self.stored = attempt, stored

    def aside(self, chunk: wire.Chunk) -> list[Event]:
        """The event of a chunk that is the last one here, and before all that the next attempt will tell.

        Whoever makes that attempt, here or elsewhere, knows nothing of this one: so its number is drawn.
        """
        self.attempt = self.stored
        number = (self.stored - 1) * ATTEMPT + ATTEMPT // 2 + randbelow(ATTEMPT // 2 - 1)
        return [Event(number, "error" if isinstance(chunk, wire.Error) else "message", chunk.encoded())]

    def of_attempt(self) -> list[Event]:
        """What has to be told again later: not what readers opt in to, nor what an earlier attempt said."""
        return [each for each in self.events if not each.opt_in and each.number > (self.attempt - 1) * ATTEMPT]

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self.events.append(event)
            if event.opt_in == TOKENS:
                self._tokens += 1
                self._size += len(event.data)
        if self._tokens > EVENTS or self._size > CHARACTERS:
            self._shrink()
        self._wake()

    def _shrink(self) -> None:
        """Without the tokens of texts that are there whole; of the text that is being written, the newer half stays."""
        tokens = [event.number for event in self.events if event.opt_in == TOKENS]
        whole = max((event.number for event in self.events if event.opt_in != TOKENS), default=0)
        start = tokens[max(bisect_right(tokens, whole), len(tokens) // 2) :]
        first = start[0] if start else whole
        kept = [event for event in self.events if event.opt_in != TOKENS or event.number >= first]
        self.dropped = max(number for number in tokens if number < first)
        self.events, self._tokens = kept, len(start)
        self._size = sum(len(event.data) for event in kept if event.opt_in == TOKENS)

    def add_later(self, events: Iterable[Event]) -> None:
        """What another replica logged, but for what is known here already."""
        known = self.events[-1].number if self.events else 0
        self.add(event for event in events if event.number > known)

    def close(self) -> None:
        if not self.closed:
            self.events.append(Event(self._next(), "done", DONE))
            self.closed = True
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, after: int, patience: float) -> AsyncIterator[list[Event]]:
        """What comes after number `after`, as it comes; an empty list when nothing came for `patience` seconds.

        Raises TooSlow.
        """
        dropped = self.dropped
        while True:
            if after < self.dropped != dropped:
                raise TooSlow
            dropped = self.dropped
            changed = self._changed
            batch = self.events[bisect_right(self.events, after, key=_number) :]
            if batch:
                after = batch[-1].number
                yield batch
            elif self.closed:
                return
            elif await _silent(changed, patience):
                yield []


def _number(event: Event) -> int:
    return event.number


def _opt_in(chunk: wire.Chunk) -> str:
    if isinstance(chunk, wire.AssistantMessage) and chunk.content is None:
        return TOKENS
    return "usage" if isinstance(chunk, wire.Usage) else ""


async def _silent(changed: asyncio.Event, patience: float) -> bool:
    try:
        await asyncio.wait_for(changed.wait(), patience)
    except TimeoutError:
        return True
    return False
