"""No reader can delay the event log of a run or make it grow."""

import json

import pytest

from graph import wire
from sessions.event_log import MAX_TOKEN_EVENTS, EventLog, ReaderTooSlow


def add_tokens(log: EventLog, *words: str) -> None:
    log.add(log.make_events(wire.AssistantMessage(token=word) for word in words))


def add_whole_text(log: EventLog, text: str) -> None:
    log.add(log.make_events([wire.AssistantMessage(content=text)]))


async def test_slow_reader_is_dropped_and_resumes_with_whole_texts() -> None:
    log = EventLog()
    add_tokens(log, "a", "b")
    reading = log.follow(0, timeout_seconds=60)
    seen = (await anext(reading))[-1].number
    add_whole_text(log, "ab")
    add_tokens(log, *["x"] * MAX_TOKEN_EVENTS)
    with pytest.raises(ReaderTooSlow):
        await anext(reading)
    add_whole_text(log, "x" * MAX_TOKEN_EVENTS)
    log.close()
    resumed = [event async for events in log.follow(seen, timeout_seconds=60) for event in events]
    told = [json.loads(event.data).get("content") for event in resumed if event.opt_in != "tokens"]
    assert told == ["ab", "x" * MAX_TOKEN_EVENTS, None]
    assert len(log.events) < MAX_TOKEN_EVENTS
    numbers = [event.number for event in resumed]
    assert numbers == sorted(set(numbers))


async def test_fast_reader_receives_every_event() -> None:
    log, tokens = EventLog(), 0
    reading = log.follow(0, timeout_seconds=60)
    for _ in range(30):
        add_tokens(log, *["x"] * (MAX_TOKEN_EVENTS // 10))
        tokens += len(await anext(reading))
    assert tokens == 3 * MAX_TOKEN_EVENTS
    assert len(log.events) <= MAX_TOKEN_EVENTS
