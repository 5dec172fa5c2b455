"""The process ends: killed whenever, killed where it hurts, told to stop."""

import asyncio
import signal
from collections import Counter

from tests.chaos.points import INJECTION_POINTS
from tests.chaos.processes import ReplicaProcess
from tests.chaos.world import ScenarioSetup, World, open_world

SESSION_COUNT = 4
POINT_SECONDS = 1.2
"""Seconds that a replica has to get to its point, from its start on: most are passed several times in them."""


async def kill_replica(setup: ScenarioSetup) -> list[str]:
    """Each round starts a replica and kills it, in turn at a random time and at a named point.

    The next one soon gets at what the last one held: a session that has to wait through many rounds is no finding.
    """
    async with open_world(setup, lease_seconds="1") as it:
        it.expected_codes |= {"interrupted"}
        reached = PointCoverage()
        async with it.play_sessions(SESSION_COUNT):
            for number in range(setup.rounds):
                (replica,) = it.replicas
                await (kill_at_point(it, replica, reached) if number % 2 else _kill_at_random(it, replica))
            await it.restart_replicas()
        it.findings += reached.list_unreached()
        return await it.judge_outcome()


async def _kill_at_random(it: World, replica: ReplicaProcess) -> None:
    replica.start()
    await asyncio.sleep(it.rng.uniform(0.2, 0.9))
    await replica.end(signal.SIGKILL)


class PointCoverage:
    """Which points a scenario passed: one that nothing passes is no test of anything."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()

    def list_unreached(self) -> list[str]:
        """Sentences on those that were tried often enough."""
        return [
            f"the point {name!r} was tried {times} times and never reached"
            for name, times in self.tried.items()
            if times > 3 and not self.passed[name]
        ]


async def kill_at_point(it: World, replica: ReplicaProcess, reached: PointCoverage) -> None:
    """Start a replica that kills itself at one; when it does not get there, it is killed."""
    name = it.rng.choice(list(INJECTION_POINTS))
    replica.start(f"{name}:{it.rng.randint(1, INJECTION_POINTS[name].max_passes)}:SIGKILL")
    reached.tried[name] += 1
    await replica.wait_until_ready()
    reached.passed[name] += await replica.wait_for_exit(POINT_SECONDS)
    await replica.end(signal.SIGKILL)


async def stop_replica(setup: ScenarioSetup) -> list[str]:
    """Each round starts a replica and tells it to stop, in the middle of its work."""
    async with open_world(setup, shutdown_seconds="1") as it:
        it.expected_codes |= {"interrupted"}
        async with it.play_sessions(SESSION_COUNT):
            for _ in range(setup.rounds):
                (replica,) = it.replicas
                replica.start()
                await asyncio.sleep(it.rng.uniform(0.4, 1))
                await replica.end(signal.SIGTERM)
            await it.restart_replicas()
        return await it.judge_outcome()
