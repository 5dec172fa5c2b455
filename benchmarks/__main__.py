"""What a turn costs. `make bench`; `python -m benchmarks --quick` takes less than a minute."""

import argparse
import asyncio
import os
import platform
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks import bare, first_word, replicas
from benchmarks.gate import measure_verdict_cost
from benchmarks.load import (
    ClosedLoopResult,
    LongSessionWindow,
    measure_closed_loop,
    measure_long_session,
    measure_token_cpu,
)
from benchmarks.service import start_scripted_model, start_service


class Effort(NamedTuple):
    turns: int
    """Of each session of a closed loop, after its first."""
    rounds: dict[int, int]
    """By the number of sessions."""
    token_rounds: int
    hostile_commands: int
    """Commands of 4 kB."""
    first_messages: int
    """First messages at each latency of the model."""
    measured_turns: list[int]
    """Turns of one long session."""


FULL_EFFORT = Effort(10, {1: 32, 16: 4, 64: 2}, 5, 20_000, 8, [10, 100, 500, 1_950, 2_000])
QUICK_EFFORT = Effort(5, {1: 8, 16: 2, 64: 1}, 1, 1_000, 2, [10, 100, 500])
STREAMED_TOKENS = 2_000


async def main(effort: Effort) -> None:
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {platform.platform()}")
    with TemporaryDirectory() as folder:
        await _report_one_process(effort, f"sqlite:///{Path(folder, 'bench.db')}")
        await first_word.report_first_words(f"sqlite:///{Path(folder, 'words.db')}", effort.first_messages)
    await replicas.report_replicas(effort.turns)


async def _report_one_process(effort: Effort, database: str) -> None:
    async with start_scripted_model() as url, start_service(database, url) as server:
        await measure_closed_loop(server, 16, effort.turns, 1)
        loops = [await measure_closed_loop(server, n, effort.turns, rounds) for n, rounds in effort.rounds.items()]
        bare_cpu = await bare.measure_turn_cpu(16, effort.turns)
        _print_loops(loops, bare_cpu, effort.turns)
        _print_windows(await measure_long_session(server, effort.measured_turns))
        token = await measure_token_cpu(server, STREAMED_TOKENS, effort.token_rounds)
        verdict = measure_verdict_cost(effort.hostile_commands)
        print(
            f"\nA verdict on a command    {verdict.ordinary * 1e6:.0f} us; the worst of {effort.hostile_commands} "
            f"hostile ones of 4 kB {verdict.worst * 1e3:.1f} ms, {verdict.worst / verdict.ordinary:.0f} times as long"
        )
        print(
            f"\nA streamed token    {token * 1e6:.0f} us of server CPU, "
            f"{STREAMED_TOKENS} tokens to a client that shows them"
        )


def _print_loops(loops: list[ClosedLoopResult], bare_cpu: float, turns: int) -> None:
    print(f"\nA turn: one read_file round trip, two requests, two model calls; turns 2 to {turns + 1} of a session\n")
    print("sessions   turns   turns/s   p50 ms   p95 ms   server CPU ms/turn   of the bare graph")
    for loop in loops:
        times = f"{loop.compute_percentile(50) * 1e3:9.1f}{loop.compute_percentile(95) * 1e3:9.1f}"
        cost = f"{loop.cpu_per_turn * 1e3:21.2f}{loop.cpu_per_turn / bare_cpu:19.1f}x"
        print(f"{loop.sessions:8}{loop.turns:8}{loop.turns / loop.seconds:10.1f}{times}{cost}")
    print(f"bare graph, in memory, no HTTP{bare_cpu * 1e3:43.2f}")
    print("aim: 6 ms of CPU at 16 sessions, 10 at most")


def _print_windows(windows: list[LongSessionWindow]) -> None:
    print("\nOne session\n\n    turn   server CPU ms/turn   of the first   KB to disk/turn   of the first")
    for late in windows:
        cpu, written = late.cpu / windows[0].cpu, late.written_bytes / windows[0].written_bytes
        print(f"{late.turn:8}{late.cpu * 1e3:21.2f}{cpu:14.2f}x{late.written_bytes / 1024:18.1f}{written:14.2f}x")
    print("aim: flat, but for one turn in some 500 that writes the whole thread anew, around turn 2000 for one")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    asyncio.run(main(QUICK_EFFORT if parser.parse_args().quick else FULL_EFFORT))
