"""The loads: each gives numbers of the service alone, read before and after."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from statistics import mean, quantiles

from benchmarks.client import GatewaySession, open_session
from benchmarks.process import MeasuredProcess

WINDOW_TURNS = 18
"""Turns around the turn that is looked at."""
names = (f"bench-{number}" for number in count())


@dataclass(frozen=True)
class ClosedLoopResult:
    """A closed loop: each session sends its next message when the last one is answered. Seconds."""

    sessions: int
    turns: int
    seconds: float
    latencies: list[float]
    cpu: float

    @property
    def cpu_per_turn(self) -> float:
        return self.cpu / self.turns

    def compute_percentile(self, number: int) -> float:
        return quantiles(self.latencies, n=100, method="inclusive")[number - 1]


@dataclass(frozen=True)
class LongSessionWindow:
    """A turn of a session that has had so many before; seconds and bytes, averaged over a window."""

    turn: int
    cpu: float
    written_bytes: float


async def measure_closed_loop(server: MeasuredProcess, sessions: int, turns: int, rounds: int) -> ClosedLoopResult:
    """Each round has new sessions; the first turn of each, which is classified, does not count."""
    latencies: list[float] = []
    seconds = cpu = 0.0
    for _ in range(rounds):
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(open_session(server.port, next(names))) for _ in range(sessions)]
            await asyncio.gather(*(each.execute_turn() for each in opened))
            started, used = time.perf_counter(), server.measure_cpu()
            for taken in await asyncio.gather(*(_measure_turns(each, turns) for each in opened)):
                latencies += taken
            seconds += time.perf_counter() - started
            cpu += server.measure_cpu() - used
    return ClosedLoopResult(sessions, len(latencies), seconds, latencies, cpu)


async def _measure_turns(gateway_session: GatewaySession, turns: int) -> list[float]:
    latencies = []
    for _ in range(turns):
        started = time.perf_counter()
        await gateway_session.execute_turn()
        latencies.append(time.perf_counter() - started)
    return latencies


async def measure_long_session(server: MeasuredProcess, measured_turns: list[int]) -> list[LongSessionWindow]:
    """One session, from its second turn to the last that is looked at."""
    found, done = [], 1
    async with open_session(server.port, next(names)) as opened:
        await opened.execute_turn()
        for number in measured_turns:
            await _measure_turns(opened, number - WINDOW_TURNS // 2 - done)
            used, wrote = server.measure_cpu(), server.measure_disk_writes()
            await _measure_turns(opened, WINDOW_TURNS)
            found.append(
                LongSessionWindow(
                    number,
                    (server.measure_cpu() - used) / WINDOW_TURNS,
                    (server.measure_disk_writes() - wrote) / WINDOW_TURNS,
                )
            )
            done = number + WINDOW_TURNS // 2
    return found


async def measure_token_cpu(server: MeasuredProcess, tokens: int, rounds: int) -> float:
    """Seconds: of a long answer less those of a short one, for a client that shows tokens."""
    long = [await _measure_answer_cpu(server, tokens) for _ in range(rounds)]
    short = [await _measure_answer_cpu(server, 1) for _ in range(rounds)]
    return (mean(long) - mean(short)) / (tokens - 1)


async def _measure_answer_cpu(server: MeasuredProcess, tokens: int) -> float:
    async with open_session(server.port, next(names)) as opened:
        await opened.execute_turn()
        used = server.measure_cpu()
        pieces = await opened.request_tokens(tokens)
        if pieces < tokens * 0.9:
            raise RuntimeError(f"{tokens} tokens came in {pieces} pieces")
        return server.measure_cpu() - used
