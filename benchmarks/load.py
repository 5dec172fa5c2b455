"""The loads: each gives numbers of the service alone, read before and after."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from statistics import mean, quantiles

from benchmarks.client import Session, session
from benchmarks.process import Process

WINDOW = 18
"""Turns around the turn that is looked at."""
names = (f"bench-{number}" for number in count())


@dataclass(frozen=True)
class Closed:
    """A closed loop: each session sends its next message when the last one is answered. Seconds."""

    sessions: int
    turns: int
    seconds: float
    latencies: list[float]
    cpu: float

    @property
    def cpu_of_a_turn(self) -> float:
        return self.cpu / self.turns

    def percentile(self, number: int) -> float:
        return quantiles(self.latencies, n=100, method="inclusive")[number - 1]


@dataclass(frozen=True)
class Late:
    """A turn of a session that has had so many before; seconds and bytes, averaged over a window."""

    turn: int
    cpu: float
    written: float


async def closed_loop(server: Process, sessions: int, turns: int, rounds: int) -> Closed:
    """Each round has new sessions; the first turn of each, which is classified, does not count."""
    latencies: list[float] = []
    seconds = cpu = 0.0
    for _ in range(rounds):
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(session(server.port, next(names))) for _ in range(sessions)]
            await asyncio.gather(*(each.turn() for each in opened))
            started, used = time.perf_counter(), server.cpu()
            for taken in await asyncio.gather(*(_turns(each, turns) for each in opened)):
                latencies += taken
            seconds += time.perf_counter() - started
            cpu += server.cpu() - used
    return Closed(sessions, len(latencies), seconds, latencies, cpu)


async def _turns(opened: Session, turns: int) -> list[float]:
    latencies = []
    for _ in range(turns):
        started = time.perf_counter()
        await opened.turn()
        latencies.append(time.perf_counter() - started)
    return latencies


async def long_session(server: Process, looked_at: list[int]) -> list[Late]:
    """One session, from its second turn to the last that is looked at."""
    found, done = [], 1
    async with session(server.port, next(names)) as opened:
        await opened.turn()
        for number in looked_at:
            await _turns(opened, number - WINDOW // 2 - done)
            used, wrote = server.cpu(), server.written()
            await _turns(opened, WINDOW)
            found.append(Late(number, (server.cpu() - used) / WINDOW, (server.written() - wrote) / WINDOW))
            done = number + WINDOW // 2
    return found


async def cpu_of_a_token(server: Process, tokens: int, rounds: int) -> float:
    """Seconds: of a long answer less those of a short one, for a client that shows tokens."""
    long = [await _answer(server, tokens) for _ in range(rounds)]
    short = [await _answer(server, 1) for _ in range(rounds)]
    return (mean(long) - mean(short)) / (tokens - 1)


async def _answer(server: Process, tokens: int) -> float:
    async with session(server.port, next(names)) as opened:
        await opened.turn()
        used = server.cpu()
        pieces = await opened.tokens(tokens)
        if pieces < tokens * 0.9:
            raise RuntimeError(f"{tokens} tokens came in {pieces} pieces")
        return server.cpu() - used
