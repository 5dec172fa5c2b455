"""Scenarios whose process ends: killed at any time, killed at a named point, or asked to stop."""

import asyncio
import signal
from collections import Counter

from tests.chaos.points import INJECTION_POINTS
from tests.chaos.processes import ReplicaProcess
from tests.chaos.world import ScenarioSetup, World, open_world

SESSION_COUNT = 4
POINT_SECONDS = 1.2
"""Seconds that a replica has to reach its point once it answers; most points are passed several times in them."""


async def kill_replica(setup: ScenarioSetup) -> list[str]:
    """Start a replica in each round and kill it, in turn at a random time and at a named point.

    The lease is short, so that the next replica soon gets the sessions of the last one.
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
    """The points that a scenario tried and passed; a point that is never passed tests nothing."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()

    def list_unreached(self) -> list[str]:
        """Return a sentence for each point that was tried often and never reached."""
        return [
            f"the point {name!r} was tried {times} times and never reached"
            for name, times in self.tried.items()
            if times > 3 and not self.passed[name]
        ]


async def kill_at_point(it: World, replica: ReplicaProcess, reached: PointCoverage) -> None:
    """Start a replica that kills itself at a random point; if it does not get there in time, kill it."""
    name = it.rng.choice(list(INJECTION_POINTS))
    replica.start(f"{name}:{it.rng.randint(1, INJECTION_POINTS[name].max_passes)}:SIGKILL")
    reached.tried[name] += 1
    await replica.wait_until_ready()
    reached.passed[name] += await replica.wait_for_exit(POINT_SECONDS)
    await replica.end(signal.SIGKILL)


async def stop_replica(setup: ScenarioSetup) -> list[str]:
    """Start a replica in each round and ask it to stop in the middle of its work."""
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
