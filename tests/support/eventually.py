"""Wait for something that happens soon, without a guess at how long it takes."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar

import pytest

T = TypeVar("T")

DEADLINE_SECONDS = 120
"""Seconds until a wait fails the test: far more than a loaded machine needs, and less than a test's own timeout."""
POLL_SECONDS = 0.02
"""Seconds between two looks: short beside the start of a process, long beside one request."""


async def eventually(
    check: Callable[[], Awaitable[T] | T], waiting_for: str, *, seconds: float = DEADLINE_SECONDS
) -> T:
    """Return the first true result of `check`, which is called again and again.

    Fails the test after `seconds`; `waiting_for` completes the sentence "It did not happen: ...".
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        found = check()
        result: T = await found if isawaitable(found) else found
        if result:
            return result
        if loop.time() > deadline:
            pytest.fail(f"It did not happen within {seconds:g} s: {waiting_for}.")
        await asyncio.sleep(POLL_SECONDS)
