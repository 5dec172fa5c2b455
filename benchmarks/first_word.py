"""Measure how long a user waits for the first word of a first message, with and without speculation."""

import time
from itertools import count
from statistics import median

from benchmarks.client import open_session
from benchmarks.process import MeasuredProcess
from benchmarks.service import start_scripted_model, start_service

MODEL_LATENCIES = [(0.1, 0.2), (0.3, 0.6), (0.8, 1.6)]
"""Seconds that a model takes to choose an agent, and to begin an answer: a fast, a usual and a slow model."""
RIGHT_GUESS_TEXT, WRONG_GUESS_TEXT = "tokens 3 create hello.py", "tokens 3 why does the test fail?"
"""Two first messages. The words of the first lead to the agent that the model chooses, those of the second not."""
NO_ROUTING_CACHE = {"routing_cache_size": "0"}
"""Each message stands for a new one, so no choice may come from the cache."""
names = (f"word-{number}" for number in count())


async def report_first_words(database: str, messages: int) -> None:
    """Print the median waits, one line for each latency of the model."""
    print("\nTo the first word of a first message, ms\n")
    print("choice, word of the model     speculating   a wrong guess     without   speculating / without")
    for choice, word in MODEL_LATENCIES:
        async with start_scripted_model(choice, word) as url:
            async with start_service(database, url, speculative_routing="true", **NO_ROUTING_CACHE) as server:
                right, wrong = [
                    await _measure_median_wait(server, text, messages) for text in (RIGHT_GUESS_TEXT, WRONG_GUESS_TEXT)
                ]
            async with start_service(database, url, **NO_ROUTING_CACHE) as server:
                without = await _measure_median_wait(server, RIGHT_GUESS_TEXT, messages)
        times = f"{right * 1e3:18.0f}{wrong * 1e3:16.0f}{without * 1e3:12.0f}"
        print(f"{choice * 1e3:6.0f}, {word * 1e3:<14.0f}{times}{right / without:24.2f}")


async def _measure_median_wait(server: MeasuredProcess, content: str, messages: int) -> float:
    """Return the median wait in seconds. One more message, which is not counted, warms the service up."""
    await _measure_first_word(server, content)
    return median([await _measure_first_word(server, content) for _ in range(messages)])


async def _measure_first_word(server: MeasuredProcess, content: str) -> float:
    async with open_session(server.port, next(names)) as opened:
        started = time.perf_counter()
        await opened.start_stream(content, b'"token":')
        return time.perf_counter() - started
