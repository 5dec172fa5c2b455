"""Put clocks forward, so that no test sits out a time limit."""

import asyncio
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from graph import timestamps


def advance_loop_clock(seconds: float) -> None:
    """Put the clock of the running event loop forward: timers that are due by then run next.

    Every test has an event loop of its own, so no other test sees that clock.
    """
    loop: Any = asyncio.get_running_loop()
    read = loop.time
    loop.time = lambda: read() + seconds


def advance_timestamps(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Put the clock of new timestamps forward, by which approvals and tool calls run out."""

    class LaterClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "LaterClock":
            return super().now(tz) + timedelta(seconds=seconds)

    monkeypatch.setattr(timestamps, "datetime", LaterClock)
