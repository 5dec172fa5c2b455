"""Several replicas on one Postgres: one dies, or sleeps longer than its lease and wakes up."""

import asyncio
import signal

from tests.chaos.ide import Habits
from tests.chaos.processes import Replica
from tests.chaos.scenarios.kills import Reached, at_a_point
from tests.chaos.world import Setup, World, world

LEASE = 1
SESSIONS = 4
BEFORE = ["before the checkpoint", "before the outcome", "storing the outcome"]
"""The last one in the middle of a transaction: what it has locked must not wait for it to wake up."""
SLOW = Habits(extra="slow:150")


async def one_killed(setup: Setup) -> list[str]:
    """Of two, one is killed in each round, in turn at a random time and at a named point; the other takes over."""
    async with world(setup, replicas=2, lease_seconds=str(LEASE)) as it:
        it.expected |= {"interrupted"}
        await it.restart()
        reached = Reached()
        async with it.playing(SESSIONS):
            for number in range(setup.rounds):
                replica = it.rng.choice(it.replicas)
                if number % 2:
                    await replica.end()
                    await at_a_point(it, replica, reached)
                else:
                    await asyncio.sleep(it.rng.uniform(0.2, 1))
                    await replica.end(signal.SIGKILL)
                await asyncio.sleep(it.rng.uniform(0, 2 * LEASE))
                replica.start()
                await replica.ready()
        it.findings += reached.never()
        return await it.judge()


async def asleep(setup: Setup) -> list[str]:
    """One is stopped, in turn where it writes and whenever, until another must have taken over, and woken."""
    async with world(setup, replicas=2, lease_seconds=str(LEASE), db_lock_timeout_seconds=str(LEASE)) as it:
        it.expected |= {"interrupted"}
        await it.restart()
        async with it.playing(SESSIONS, SLOW):
            for number in range(setup.rounds):
                replica = it.rng.choice(it.replicas)
                await (_at_any_time(it, replica) if number % 2 else _before_a_write(it, replica))
                await asyncio.sleep(LEASE * it.rng.uniform(2, 3))
                replica.send(signal.SIGCONT)
        return await it.judge()


async def _at_any_time(it: World, replica: Replica) -> None:
    await asyncio.sleep(it.rng.uniform(0.3, 0.8))
    replica.send(signal.SIGSTOP)


async def _before_a_write(it: World, replica: Replica) -> None:
    await replica.end()
    replica.start(f"{it.rng.choice(BEFORE)}:{it.rng.randint(1, 4)}:SIGSTOP")
    if not await replica.stopped(10):
        it.findings.append("the replica was not stopped at its point")
