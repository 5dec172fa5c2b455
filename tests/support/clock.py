"""Clocks that a test can put forward, so that it waits for no time limit."""

import asyncio
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from graph import timestamps

ROUNDS = 100
"""Rounds of the event loop that all other tasks need at most to come to a wait: reading a piece takes about ten."""


async def advance_loop_clock(seconds: float) -> None:
    """Let all other tasks come to a wait, then put the clock of the event loop forward: due timers run next.

    Every test has an event loop of its own, so no other test sees that clock.
    """
    loop: Any = asyncio.get_running_loop()
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
    read_clock = loop.time
    loop.time = lambda: read_clock() + seconds


def advance_timestamps(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Put the clock of new timestamps forward, by which approvals and tool calls run out."""

    class LaterClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "LaterClock":
            return super().now(tz) + timedelta(seconds=seconds)

    monkeypatch.setattr(timestamps, "datetime", LaterClock)
