"""Scenarios with two replicas on one Postgres: one dies, or sleeps longer than its lease and wakes up."""

import asyncio
import signal

from tests.chaos.ide import IdeBehavior
from tests.chaos.processes import ReplicaProcess
from tests.chaos.scenarios.kills import PointCoverage, kill_at_point
from tests.chaos.world import ScenarioSetup, World, open_world

LEASE_SECONDS = 1
SESSION_COUNT = 4
WRITE_POINTS = ["before the checkpoint", "before the outcome", "storing the outcome"]
"""The last one is in the middle of a transaction: its locks must not last until it wakes up."""
SLOW_BEHAVIOR = IdeBehavior(extra_words="slow:150")


async def kill_one_replica(setup: ScenarioSetup) -> list[str]:
    """Kill one replica in each round, in turn at a random time and at a named point; the other one takes over."""
    async with open_world(setup, replicas=2, lease_seconds=str(LEASE_SECONDS)) as it:
        it.expected_codes |= {"interrupted"}
        await it.restart_replicas()
        reached = PointCoverage()
        async with it.play_sessions(SESSION_COUNT):
            for number in range(setup.rounds):
                replica = it.rng.choice(it.replicas)
                if number % 2:
                    await replica.end()
                    await kill_at_point(it, replica, reached)
                else:
                    await asyncio.sleep(it.rng.uniform(0.2, 1))
                    await replica.end(signal.SIGKILL)
                await asyncio.sleep(it.rng.uniform(0, 2 * LEASE_SECONDS))
                replica.start()
                await replica.wait_until_ready()
        it.findings += reached.list_unreached()
        return await it.judge_outcome()


async def suspend_replica(setup: ScenarioSetup) -> list[str]:
    """Suspend one replica in each round, in turn before a write and at a random time.

    It wakes up when the other one must have taken over."""
    async with open_world(
        setup, replicas=2, lease_seconds=str(LEASE_SECONDS), db_lock_timeout_seconds=str(LEASE_SECONDS)
    ) as it:
        it.expected_codes |= {"interrupted"}
        await it.restart_replicas()
        async with it.play_sessions(SESSION_COUNT, SLOW_BEHAVIOR):
            for number in range(setup.rounds):
                replica = it.rng.choice(it.replicas)
                await (_suspend_at_random(it, replica) if number % 2 else _suspend_before_write(it, replica))
                await asyncio.sleep(LEASE_SECONDS * it.rng.uniform(2, 3))
                replica.send_signal(signal.SIGCONT)
        return await it.judge_outcome()


async def _suspend_at_random(it: World, replica: ReplicaProcess) -> None:
    await asyncio.sleep(it.rng.uniform(0.3, 0.8))
    replica.send_signal(signal.SIGSTOP)


async def _suspend_before_write(it: World, replica: ReplicaProcess) -> None:
    await replica.end()
    replica.start(f"{it.rng.choice(WRITE_POINTS)}:{it.rng.randint(1, 4)}:SIGSTOP")
    if not await replica.wait_until_suspended():
        it.findings.append("the replica was not stopped at its point")
