"""How long a user waits for the first word of a first message, with and without speculation."""

import time
from itertools import count
from statistics import median

from benchmarks.client import session
from benchmarks.process import Process
from benchmarks.service import scripted_model, service

LATENCIES = [(0.1, 0.2), (0.3, 0.6), (0.8, 1.6)]
"""Seconds of a model: to choose an agent, to the first word of an answer."""
RIGHT, WRONG = "tokens 3", "tokens 3 why does the test fail?"
"""What the words speak for whom the model chooses, and for another."""
ANEW = {"routing_cache_size": "0"}
"""Each message stands for one that nobody has sent before."""
names = (f"word-{number}" for number in count())


async def report(database: str, messages: int) -> None:
    print("\nTo the first word of a first message, ms\n")
    print("choice, word of the model     speculating   a wrong guess     without   speculating / without")
    for choice, word in LATENCIES:
        async with scripted_model(choice, word) as url:
            async with service(database, url, speculative_routing="true", **ANEW) as server:
                right, wrong = [await _waited(server, said, messages) for said in (RIGHT, WRONG)]
            async with service(database, url, **ANEW) as server:
                without = await _waited(server, RIGHT, messages)
        times = f"{right * 1e3:18.0f}{wrong * 1e3:16.0f}{without * 1e3:12.0f}"
        print(f"{choice * 1e3:6.0f}, {word * 1e3:<14.0f}{times}{right / without:24.2f}")


async def _waited(server: Process, said: str, messages: int) -> float:
    """Seconds, the median."""
    await _first_word(server, said)
    return median([await _first_word(server, said) for _ in range(messages)])


async def _first_word(server: Process, said: str) -> float:
    async with session(server.port, next(names)) as opened:
        started = time.perf_counter()
        await opened.begin(said, b'"token":')
        return time.perf_counter() - started
