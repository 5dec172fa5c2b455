"""Wait for something that happens soon, without a guess at how long it takes."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeVar, overload

import pytest

T = TypeVar("T")

DEADLINE_SECONDS = 120
"""Seconds until a wait fails the test: far more than a loaded machine needs, and less than a test's own timeout."""
POLL_SECONDS = 0.02
"""Seconds between two looks: short beside the start of a process, long beside one request."""


@overload
async def poll(check: Callable[[], Awaitable[T]], seconds: float) -> T: ...


@overload
async def poll(check: Callable[[], T], seconds: float) -> T: ...


async def poll(check: Callable[[], Any], seconds: float) -> Any:
    """Call `check` again and again; return its first true result, or its last one after `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        result = check()
        if isawaitable(result):
            result = await result
        if result or loop.time() > deadline:
            return result
        await asyncio.sleep(POLL_SECONDS)


@overload
async def eventually(check: Callable[[], Awaitable[T]], waited_for: str) -> T: ...


@overload
async def eventually(check: Callable[[], T], waited_for: str) -> T: ...


async def eventually(check: Callable[[], Any], waited_for: str) -> Any:
    """Return the first true result of `check`, which is called again and again.

    Fails the test after DEADLINE_SECONDS; `waited_for` is a sentence that says what did not happen.
    """
    if result := await poll(check, DEADLINE_SECONDS):
        return result
    pytest.fail(f"This did not happen within {DEADLINE_SECONDS} s: {waited_for}")
