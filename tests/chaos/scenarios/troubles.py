"""The database goes away, loses its connections, or has no room."""

import asyncio
from contextlib import suppress
from pathlib import Path

import httpx

from tests.chaos.ide import Habits
from tests.chaos.processes import POLL
from tests.chaos.world import Setup, World, world

SESSIONS = 4
TROUBLED = {"internal", "interrupted", "session_busy"}
WAYS = ["fast", "immediate"]
"""Of stopping Postgres."""


async def restart(setup: Setup) -> list[str]:
    """Postgres is restarted while runs go on, each time for up to a second."""
    async with world(setup) as it:
        assert setup.postgres
        it.expected |= TROUBLED
        await it.restart()
        async with it.playing(SESSIONS):
            for _ in range(setup.rounds):
                await asyncio.sleep(it.rng.uniform(0.2, 1))
                await setup.postgres.restart(it.rng.choice(WAYS), it.rng.uniform(0, 1))
            await asyncio.sleep(0.5)
        await _serves(it)
        return await it.judge()


async def idle(setup: Setup) -> list[str]:
    """Postgres is restarted while nothing goes on: no client may notice, though every connection is dead."""
    async with world(setup) as it:
        assert setup.postgres
        await it.restart()
        ides = [it.ide(Habits(joins=0)) for _ in range(SESSIONS)]
        for _ in range(setup.rounds):
            await asyncio.gather(*(ide.turn("read", "write") for ide in ides))
            await setup.postgres.restart(it.rng.choice(WAYS), 0)
            await _unnoticed(it)
        return await it.judge()


async def _unnoticed(it: World) -> None:
    """What a 503 would say is that the database is away, and it is not."""
    paths = [f"/sessions/{ide.session}/history" for ide in it.ides]
    for response in await asyncio.gather(*(it.get(path) for path in paths)):
        if response.status_code != 200:
            it.findings.append(f"with the database there, {response.url.path} says {response.status_code}")


async def terminate(setup: Setup) -> list[str]:
    """Every half second all of the service's connections are ended."""
    async with world(setup) as it:
        assert setup.postgres
        it.expected |= TROUBLED
        await it.restart()
        async with it.playing(SESSIONS):
            for _ in range(setup.rounds):
                await asyncio.sleep(0.5)
                setup.postgres.terminate(it.database.url)
            await asyncio.sleep(0.5)
        await _serves(it)
        return await it.judge()


async def full(setup: Setup) -> list[str]:
    """The files may not grow: the service answers with errors, lives, and works again when there is room."""
    async with world(setup, delay=0.01) as it:
        it.expected |= TROUBLED
        await it.restart()
        (replica,) = it.replicas
        async with it.playing(SESSIONS, Habits(extra="words:500")):
            for _ in range(setup.rounds):
                await asyncio.sleep(0.5)
                replica.limit_files(_largest(it.setup.folder) + it.rng.randrange(200_000))
                await it.refusal()
                await asyncio.sleep(it.rng.uniform(0, 0.5))
                replica.limit_files(-1)
                await _serves(it)
        return await it.judge()


async def _serves(it: World) -> None:
    """The service is there, and its database for it."""
    async with asyncio.timeout(20):
        while True:
            with suppress(httpx.TransportError):
                if all([(await it.get("/ready", at=n)).status_code == 200 for n in range(len(it.replicas))]):
                    return
            await asyncio.sleep(POLL)


def _largest(folder: Path) -> int:
    return max(file.stat().st_size for file in folder.glob("chaos.db*"))
