"""The process ends: killed whenever, killed where it hurts, told to stop."""

import asyncio
import signal
from collections import Counter

from tests.chaos.points import POINTS
from tests.chaos.processes import Replica
from tests.chaos.world import Setup, World, world

SESSIONS = 4


async def kill(setup: Setup) -> list[str]:
    """Each round starts a replica and kills it, in turn at a random time and at a named point.

    The next one soon gets at what the last one held: a session that has to wait through many rounds is no finding.
    """
    async with world(setup, lease_seconds="1") as it:
        it.expected |= {"interrupted"}
        reached = Reached()
        async with it.playing(SESSIONS):
            for number in range(setup.rounds):
                (replica,) = it.replicas
                await (at_a_point(it, replica, reached) if number % 2 else _any_time(it, replica))
            await it.restart()
        it.findings += reached.never()
        return await it.judge()


async def _any_time(it: World, replica: Replica) -> None:
    replica.start()
    await asyncio.sleep(it.rng.uniform(0.2, 0.9))
    await replica.end(signal.SIGKILL)


class Reached:
    """Which points a scenario passed: one that nothing passes is no test of anything."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()

    def never(self) -> list[str]:
        """Sentences on those that were tried often enough."""
        return [
            f"the point {name!r} was tried {times} times and never reached"
            for name, times in self.tried.items()
            if times > 3 and not self.passed[name]
        ]


async def at_a_point(it: World, replica: Replica, reached: Reached) -> None:
    """Start a replica that kills itself at one; when it does not get there, it is killed."""
    name = it.rng.choice(list(POINTS))
    replica.start(f"{name}:{it.rng.randint(1, POINTS[name].most)}:SIGKILL")
    reached.tried[name] += 1
    reached.passed[name] += await replica.died(1.5)
    await replica.end(signal.SIGKILL)


async def stop(setup: Setup) -> list[str]:
    """Each round starts a replica and tells it to stop, in the middle of its work."""
    async with world(setup, shutdown_seconds="1") as it:
        it.expected |= {"interrupted"}
        async with it.playing(SESSIONS):
            for _ in range(setup.rounds):
                (replica,) = it.replicas
                replica.start()
                await asyncio.sleep(it.rng.uniform(0.4, 1))
                await replica.end(signal.SIGTERM)
            await it.restart()
        return await it.judge()
