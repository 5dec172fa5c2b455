"""Put loads on the service. Each returns numbers of the service's process alone, read before and after."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from statistics import mean, quantiles

from benchmarks.client import GatewaySession, open_session
from benchmarks.process import MeasuredProcess

WINDOW_TURNS = 18
"""Turns around the measured turn. No more fit around turn 10, the first measured one, without the first turn."""
LEAST_PIECES = 0.9
"""The share of the tokens that must arrive alone. On a slow machine some are joined; chosen, not measured."""
names = (f"bench-{number}" for number in count())


@dataclass(frozen=True)
class ClosedLoopResult:
    """The result of a closed loop: each session sends its next message when the last one is answered."""

    sessions: int
    turns: int
    """All the turns that count."""
    seconds: float
    latencies: list[float]
    """Seconds, one of each turn."""
    cpu: float
    """CPU seconds of the service."""

    @property
    def cpu_per_turn(self) -> float:
        return self.cpu / self.turns

    def compute_percentile(self, number: int) -> float:
        """Return the latency, in seconds, that `number` per cent of the turns do not exceed."""
        return quantiles(self.latencies, n=100, method="inclusive")[number - 1]


@dataclass(frozen=True)
class LongSessionWindow:
    """The cost of a turn late in a session, averaged over a window of turns."""

    turn: int
    """The turn in the middle of the window, from 1."""
    cpu: float
    """CPU seconds of the service."""
    written_bytes: float


async def measure_closed_loop(server: MeasuredProcess, sessions: int, turns: int, rounds: int) -> ClosedLoopResult:
    """Return the sums over all rounds. Each round has new sessions.

    The first turn of a session does not count, since it is classified.
    """
    latencies: list[float] = []
    seconds = cpu = 0.0
    for _ in range(rounds):
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(open_session(server.port, next(names))) for _ in range(sessions)]
            await asyncio.gather(*(each.execute_turn() for each in opened))
            started, used = time.perf_counter(), server.measure_cpu()
            for measured in await asyncio.gather(*(_measure_turns(each, turns) for each in opened)):
                latencies += measured
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
    """Return a window for each of `measured_turns`, all of one session."""
    windows, done = [], 1
    async with open_session(server.port, next(names)) as opened:
        await opened.execute_turn()
        for number in measured_turns:
            await _measure_turns(opened, number - WINDOW_TURNS // 2 - done)
            used, wrote = server.measure_cpu(), server.measure_disk_writes()
            await _measure_turns(opened, WINDOW_TURNS)
            windows.append(
                LongSessionWindow(
                    number,
                    (server.measure_cpu() - used) / WINDOW_TURNS,
                    (server.measure_disk_writes() - wrote) / WINDOW_TURNS,
                )
            )
            done = number + WINDOW_TURNS // 2
    return windows


async def measure_token_cpu(server: MeasuredProcess, tokens: int, rounds: int) -> float:
    """Return the CPU seconds of one token, for a client that shows tokens.

    They are the difference of a long answer and a short one, divided by the tokens.
    """
    long = [await _measure_answer_cpu(server, tokens) for _ in range(rounds)]
    short = [await _measure_answer_cpu(server, 1) for _ in range(rounds)]
    return (mean(long) - mean(short)) / (tokens - 1)


async def _measure_answer_cpu(server: MeasuredProcess, tokens: int) -> float:
    async with open_session(server.port, next(names)) as opened:
        await opened.execute_turn()
        used = server.measure_cpu()
        pieces = await opened.request_tokens(tokens)
        if pieces < tokens * LEAST_PIECES:
            raise RuntimeError(f"{tokens} tokens came in {pieces} pieces: the cost of a token cannot be measured.")
        return server.measure_cpu() - used
