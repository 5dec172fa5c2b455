"""The event log of a run: the run writes it, any number of streams read it, each at its own pace."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from secrets import randbelow
from typing import NamedTuple

from graph import wire

TOKENS = "tokens"
DONE_DATA = '{"status": "completed"}'
NUMBERS_PER_ATTEMPT = 1_000_000
"""Numbers reserved for each attempt at a run, so that no number is used twice: far more than a run has events."""
MAX_TOKEN_EVENTS = 20_000
MAX_TOKEN_CHARACTERS = 8_000_000
"""Bounds of the tokens that a log keeps (about 8 MB); the other events are bounded by the run's limits."""


class ReaderTooSlow(Exception):
    """The log has dropped the reader's next events; the reader may resume with its last event id."""


class RunEvent(NamedTuple):
    number: int
    name: str
    data: str
    """One line of ASCII JSON."""
    opt_in: str = ""
    """The opt-in that a reader needs: tokens, usage or none. Events without one are stored and survive a crash."""


@dataclass
class EventLog:
    """In memory while its run is active. The run never waits for a reader."""

    attempt: int = 1
    stored_attempt: int = 1
    """The attempt that the database has."""
    events: list[RunEvent] = field(default_factory=list)
    is_closed: bool = False
    dropped_up_to: int = 0
    """The highest number that was dropped."""
    _token_count: int = 0
    _token_characters: int = 0
    """Number and characters of the token events that are kept."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def make_events(self, chunks: Iterable[wire.Chunk]) -> list[RunEvent]:
        """Return the chunks as the next events; `add` sends them."""
        return [self._make_event(ahead, chunk) for ahead, chunk in enumerate(chunks)]

    def _make_event(self, ahead: int, chunk: wire.Chunk) -> RunEvent:
        name = "error" if isinstance(chunk, wire.Error) else "message"
        return RunEvent(self._next_number() + ahead, name, chunk.to_json_line(), _opt_in_of(chunk))

    def _next_number(self) -> int:
        first = (self.attempt - 1) * NUMBERS_PER_ATTEMPT + 1
        return max(self.events[-1].number + 1, first) if self.events else first

    def begin_attempt(self, attempt: int, stored_attempt: int) -> None:
        """Number the next events as those of another attempt; the database has `stored_attempt`."""
        self.attempt, self.stored_attempt = attempt, stored_attempt

    def make_detach_event(self, chunk: wire.Chunk) -> list[RunEvent]:
        """Return the last event of this replica, numbered before every event of the next attempt.

        The replica that makes the next attempt does not know of this event, so its number is drawn at random.
        """
        self.attempt = self.stored_attempt
        number = (
            (self.stored_attempt - 1) * NUMBERS_PER_ATTEMPT
            + NUMBERS_PER_ATTEMPT // 2
            + randbelow(NUMBERS_PER_ATTEMPT // 2 - 1)
        )
        return [RunEvent(number, "error" if isinstance(chunk, wire.Error) else "message", chunk.to_json_line())]

    def replayable_events(self) -> list[RunEvent]:
        """Return the events to store: those of this attempt that need no opt-in."""
        return [
            each for each in self.events if not each.opt_in and each.number > (self.attempt - 1) * NUMBERS_PER_ATTEMPT
        ]

    def add(self, events: Iterable[RunEvent]) -> None:
        """Append the events and wake the readers."""
        for event in events:
            self.events.append(event)
            if event.opt_in == TOKENS:
                self._token_count += 1
                self._token_characters += len(event.data)
        if self._token_count > MAX_TOKEN_EVENTS or self._token_characters > MAX_TOKEN_CHARACTERS:
            self._drop_old_tokens()
        self._notify_readers()

    def _drop_old_tokens(self) -> None:
        """Drop the tokens of finished texts, and the older half of the text that is being written."""
        tokens = [event.number for event in self.events if event.opt_in == TOKENS]
        whole = max((event.number for event in self.events if event.opt_in != TOKENS), default=0)
        start = tokens[max(bisect_right(tokens, whole), len(tokens) // 2) :]
        first = start[0] if start else whole
        kept = [event for event in self.events if event.opt_in != TOKENS or event.number >= first]
        self.dropped_up_to = max(number for number in tokens if number < first)
        self.events, self._token_count = kept, len(start)
        self._token_characters = sum(len(event.data) for event in kept if event.opt_in == TOKENS)

    def add_missing(self, events: Iterable[RunEvent]) -> None:
        """Add the events of another replica whose numbers are not here yet."""
        last = self.events[-1].number if self.events else 0
        self.add(event for event in events if event.number > last)

    def close(self) -> None:
        """Append the `done` event once, and end the readers."""
        if not self.is_closed:
            self.events.append(RunEvent(self._next_number(), "done", DONE_DATA))
            self.is_closed = True
            self._notify_readers()

    def _notify_readers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, after: int, timeout_seconds: float) -> AsyncIterator[list[RunEvent]]:
        """Yield the events after number `after` in batches; an empty batch after `timeout_seconds` of silence.

        Raises ReaderTooSlow.
        """
        dropped = self.dropped_up_to
        while True:
            if after < self.dropped_up_to != dropped:
                raise ReaderTooSlow
            dropped = self.dropped_up_to
            changed = self._changed
            batch = self.events[bisect_right(self.events, after, key=_event_number) :]
            if batch:
                after = batch[-1].number
                yield batch
            elif self.is_closed:
                return
            elif await _stays_silent(changed, timeout_seconds):
                yield []


def _event_number(event: RunEvent) -> int:
    return event.number


def _opt_in_of(chunk: wire.Chunk) -> str:
    if isinstance(chunk, wire.AssistantMessage) and chunk.content is None:
        return TOKENS
    return "usage" if isinstance(chunk, wire.Usage) else ""


async def _stays_silent(changed: asyncio.Event, timeout_seconds: float) -> bool:
    try:
        await asyncio.wait_for(changed.wait(), timeout_seconds)
    except TimeoutError:
        return True
    return False
