"""Several replicas on one Postgres: one dies, or sleeps longer than its lease and wakes up."""

import asyncio
import signal

from tests.chaos.ide import Habits
from tests.chaos.points import POINTS
from tests.chaos.world import Setup, world

LEASE = 1
SESSIONS = 4
SLOW = Habits(extra="slow:150")


async def one_killed(setup: Setup) -> list[str]:
    """Of two, one is killed in each round, in turn at a random time and at a named point; the other takes over."""
    async with world(setup, replicas=2, lease_seconds=str(LEASE)) as it:
        it.expected |= {"interrupted"}
        await it.restart()
        async with it.playing(SESSIONS):
            for number in range(setup.rounds):
                replica = it.rng.choice(it.replicas)
                if number % 2:
                    await replica.end()
                    replica.start(f"{it.rng.choice(list(POINTS))}:{it.rng.randint(1, 4)}")
                    await replica.died(2)
                else:
                    await asyncio.sleep(it.rng.uniform(0.2, 1))
                await replica.end(signal.SIGKILL)
                await asyncio.sleep(it.rng.uniform(0, 2 * LEASE))
                replica.start()
                await replica.ready()
        return await it.judge()


async def asleep(setup: Setup) -> list[str]:
    """One is stopped while its runs are under way, until another must have taken them over, and woken."""
    async with world(setup, replicas=2, lease_seconds=str(LEASE)) as it:
        it.expected |= {"interrupted"}
        await it.restart()
        async with it.playing(SESSIONS, SLOW):
            for _ in range(setup.rounds):
                await asyncio.sleep(it.rng.uniform(0.3, 0.8))
                replica = it.rng.choice(it.replicas)
                replica.send(signal.SIGSTOP)
                await asyncio.sleep(LEASE * it.rng.uniform(2, 3))
                replica.send(signal.SIGCONT)
        return await it.judge()
