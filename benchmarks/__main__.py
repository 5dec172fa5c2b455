"""Measure the cost of a turn. `make bench` runs it; `python -m benchmarks --quick` takes less than a minute."""

import argparse
import asyncio
import os
import platform
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks import bare, first_word, replicas
from benchmarks.load import (
    ClosedLoopResult,
    LongSessionWindow,
    measure_closed_loop,
    measure_long_session,
    measure_token_cpu,
)
from benchmarks.service import start_scripted_model, start_service
from benchmarks.verdict_cost import measure_verdict_cost


class Effort(NamedTuple):
    """The size of each measurement."""

    turns: int
    """The turns of each session of a closed loop that count, after its first one."""
    rounds: dict[int, int]
    """The rounds of a closed loop, by its number of sessions."""
    token_rounds: int
    """The long answers that are measured, and as many short ones."""
    hostile_commands: int
    """The hostile commands whose verdicts are measured."""
    first_messages: int
    """The first messages at each latency of the model."""
    measured_turns: list[int]
    """The turns of one long session that are measured, in rising order."""


FULL_EFFORT = Effort(
    turns=10,
    rounds={1: 32, 16: 4, 64: 2},  # fewer sessions take more rounds, so that each loop has hundreds of turns
    token_rounds=5,
    hostile_commands=20_000,
    first_messages=8,
    measured_turns=[10, 100, 500, 1_950, 2_000],  # the thread is written whole between the last two
)
"""The effort behind the numbers of the README, where runs differ by a tenth."""
QUICK_EFFORT = Effort(
    turns=5,
    rounds={1: 8, 16: 2, 64: 1},
    token_rounds=1,
    hostile_commands=1_000,
    first_messages=2,
    measured_turns=[10, 100, 500],
)
"""Chosen to take less than a minute. Its numbers are rougher."""
STREAMED_TOKENS = 2_000
"""Tokens of a long answer. They cost much more than the rest of its turn."""
CPU_SESSIONS = 16
"""The sessions of the warm-up and of the bare graph. The aim for the CPU of a turn is set at this number."""


async def main(effort: Effort) -> None:
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {platform.platform()}")
    with TemporaryDirectory() as folder:
        await _report_one_process(effort, f"sqlite:///{Path(folder, 'bench.db')}")
        await first_word.report_first_words(f"sqlite:///{Path(folder, 'words.db')}", effort.first_messages)
    await replicas.report_replicas(effort.turns)


async def _report_one_process(effort: Effort, database: str) -> None:
    async with start_scripted_model() as url, start_service(database, url) as server:
        await measure_closed_loop(server, CPU_SESSIONS, effort.turns, 1)
        loops = [await measure_closed_loop(server, n, effort.turns, rounds) for n, rounds in effort.rounds.items()]
        bare_cpu = await bare.measure_turn_cpu(CPU_SESSIONS, effort.turns)
        _print_loops(loops, bare_cpu, effort.turns)
        _print_windows(await measure_long_session(server, effort.measured_turns))
        token = await measure_token_cpu(server, STREAMED_TOKENS, effort.token_rounds)
        verdict = measure_verdict_cost(effort.hostile_commands)
        print(
            f"\nA verdict on a command    {verdict.ordinary * 1e6:.0f} us; the worst of {effort.hostile_commands} "
            f"hostile ones {verdict.worst * 1e3:.1f} ms, {verdict.worst / verdict.ordinary:.0f} times as long"
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
    print("aim: flat. One turn in some 500 writes the whole thread again, one of them around turn 2000.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    asyncio.run(main(QUICK_EFFORT if parser.parse_args().quick else FULL_EFFORT))
