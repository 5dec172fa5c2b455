"""Scenarios whose database goes away, loses its connections, or has no room."""

import asyncio
from pathlib import Path

import httpx

from tests.chaos.ide import IdeBehavior
from tests.chaos.world import ScenarioSetup, World, open_world
from tests.support.eventually import DEADLINE_SECONDS, poll

SESSION_COUNT = 4
EXPECTED_CODES = {"internal", "interrupted", "session_busy"}
STOP_MODES = ["fast", "immediate"]
"""The modes in which Postgres is stopped."""


async def restart_database(setup: ScenarioSetup) -> list[str]:
    """Restart Postgres while runs are active; it is away for up to a second each time."""
    async with open_world(setup) as it:
        assert setup.postgres
        it.expected_codes |= EXPECTED_CODES
        await it.restart_replicas()
        async with it.play_sessions(SESSION_COUNT):
            for _ in range(setup.rounds):
                await asyncio.sleep(it.rng.uniform(0.2, 1))
                await setup.postgres.restart(it.rng.choice(STOP_MODES), it.rng.uniform(0, 1))
            await asyncio.sleep(0.5)
        await _wait_until_ready(it)
        return await it.judge_outcome()


async def restart_while_idle(setup: ScenarioSetup) -> list[str]:
    """Restart Postgres while no run is active: no client may notice, though every connection is dead."""
    async with open_world(setup) as it:
        assert setup.postgres
        await it.restart_replicas()
        ides = [it.add_ide(IdeBehavior(join_probability=0)) for _ in range(SESSION_COUNT)]
        for _ in range(setup.rounds):
            await asyncio.gather(*(ide.play_turn("read", "write") for ide in ides))
            await setup.postgres.restart(it.rng.choice(STOP_MODES), 0)
            await _check_histories(it)
        return await it.judge_outcome()


async def _check_histories(it: World) -> None:
    """Read all histories; a 503 would say that the database is away, and it is there."""
    paths = [f"/sessions/{ide.session}/history" for ide in it.ides]
    for response in await asyncio.gather(*(it.get(path) for path in paths)):
        if response.status_code != 200:
            it.findings.append(f"with the database there, {response.url.path} says {response.status_code}")


async def terminate_connections(setup: ScenarioSetup) -> list[str]:
    """Terminate all connections of the service every half second."""
    async with open_world(setup) as it:
        assert setup.postgres
        it.expected_codes |= EXPECTED_CODES
        await it.restart_replicas()
        async with it.play_sessions(SESSION_COUNT):
            for _ in range(setup.rounds):
                await asyncio.sleep(0.5)
                setup.postgres.terminate_connections(it.database.url)
            await asyncio.sleep(0.5)
        await _wait_until_ready(it)
        return await it.judge_outcome()


async def fill_disk(setup: ScenarioSetup) -> list[str]:
    """Stop the files from growing: the service answers with errors, lives, and works again when there is room."""
    async with open_world(setup, delay=0.01) as it:
        it.expected_codes |= EXPECTED_CODES
        await it.restart_replicas()
        (replica,) = it.replicas
        async with it.play_sessions(SESSION_COUNT, IdeBehavior(extra_words="words:500")):
            for _ in range(setup.rounds):
                await asyncio.sleep(0.5)
                replica.limit_file_size(_measure_largest_file(it.setup.folder) + it.rng.randrange(200_000))
                await it.wait_for_refusal()
                await asyncio.sleep(it.rng.uniform(0, 0.5))
                replica.limit_file_size(-1)
                await _wait_until_ready(it)
        return await it.judge_outcome()


async def _wait_until_ready(it: World) -> None:
    """Wait until every replica answers that it reaches its database. Raises TimeoutError."""

    async def are_ready() -> bool:
        try:
            return all([(await it.get("/ready", at=n)).status_code == 200 for n in range(len(it.replicas))])
        except httpx.TransportError:
            return False

    if not await poll(are_ready, DEADLINE_SECONDS):
        raise TimeoutError(f"a replica is not ready after {DEADLINE_SECONDS} s")


def _measure_largest_file(folder: Path) -> int:
    return max(file.stat().st_size for file in folder.glob("chaos.db*"))
