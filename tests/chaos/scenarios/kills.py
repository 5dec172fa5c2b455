"""The process ends: killed whenever, killed where it hurts, told to stop."""

import asyncio
import signal

from tests.chaos.points import POINTS
from tests.chaos.world import Setup, World, world

SESSIONS = 4


async def kill(setup: Setup) -> list[str]:
    """Each round starts a replica and kills it, in turn at a random time and at a named point."""
    async with world(setup) as it:
        it.expected |= {"interrupted"}
        async with it.playing(SESSIONS):
            for number in range(setup.rounds):
                await _round(it, at_a_point=bool(number % 2))
            await it.restart()
        return await it.judge()


async def _round(it: World, *, at_a_point: bool) -> None:
    (replica,) = it.replicas
    delay = it.rng.uniform(0.2, 1.2)
    point = f"{it.rng.choice(list(POINTS))}:{it.rng.randint(1, 4)}" if at_a_point else ""
    replica.start(point)
    await (replica.died(2) if at_a_point else asyncio.sleep(delay))
    await replica.end(signal.SIGKILL)


async def stop(setup: Setup) -> list[str]:
    """Each round starts a replica and tells it to stop, in the middle of its work."""
    async with world(setup, shutdown_seconds="1") as it:
        it.expected |= {"interrupted"}
        async with it.playing(SESSIONS):
            for _ in range(setup.rounds):
                (replica,) = it.replicas
                replica.start()
                await asyncio.sleep(it.rng.uniform(0.3, 1.2))
                await replica.end(signal.SIGTERM)
            await it.restart()
        return await it.judge()
