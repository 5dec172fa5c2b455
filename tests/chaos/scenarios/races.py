"""Two requests of one session at once: what comes of them is as if one had been first.

Each race has a session of its own, and two clients; where there are two replicas, each asks one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from tests.chaos.ide import Abandoned, Chunk, GaveUp, Habits, Ide, calls_of, failure
from tests.chaos.world import Setup, World, world

AT_ONCE = 4
SPREAD = 0.02
"""Seconds between the two requests, at most."""
STEADY = Habits(joins=0, switches=0, parallel=False)


class Pair(NamedTuple):
    """Two clients of one session."""

    it: World
    first: Ide
    second: Ide

    async def race(self, one: Callable[[], Awaitable[Any]], other: Callable[[], Awaitable[Any]]) -> tuple[Any, Any]:
        """Both answers. Which starts first, and by how much, is the seed's."""
        delays = [0, self.it.rng.uniform(0, SPREAD)]
        self.it.rng.shuffle(delays)
        return await asyncio.gather(_later(delays[0], one), _later(delays[1], other))

    async def asked(self, *steps: str) -> Chunk:
        """The call that a new turn begins with. Raises GaveUp."""
        calls = list(calls_of(await self.first.say(*steps)).values())
        self.expect(len(calls) == 1, f"the model asked for one call, and {len(calls)} came")
        if not calls:
            raise GaveUp
        return calls[0]

    def expect(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.it.findings.append(f"{self.first.session}: {sentence}")


async def _later(seconds: float, work: Callable[[], Awaitable[Any]]) -> Any:
    await asyncio.sleep(seconds)
    return await work()


Race = Callable[[Pair], Awaitable[None]]


async def same_result(pair: Pair) -> None:
    call = await pair.asked("read")
    message = _result(call)
    pair.first.note_executed(call)
    one, other = await pair.race(lambda: pair.first.send(message), lambda: pair.second.send(message))
    pair.expect(one == other and failure(one) is None, f"one result got {one} and {other}")


async def same_message(pair: Pair) -> None:
    message = pair.first.opening("read")
    one, other = await pair.race(lambda: pair.first.send(message), lambda: pair.second.send(message))
    pair.expect(one == other and len(calls_of(one)) == 1, f"one message got {one} and {other}")
    await pair.first.work_off(one)


async def approve_and_reject(pair: Pair) -> None:
    call = await pair.asked("write")
    one, other = await pair.race(
        lambda: pair.first.send(_decision(call, "approve")), lambda: pair.second.send(_decision(call, "reject"))
    )
    lost = [code for code in (failure(one), failure(other)) if code]
    pair.expect(lost == ["call_not_open"], f"approved and rejected at once got {one} and {other}")
    await pair.first.work_off(one)


async def decision_and_cancel(pair: Pair) -> None:
    call = await pair.asked("write")
    one, _ = await pair.race(lambda: pair.first.send(_decision(call, "approve")), pair.second.cancel)
    pair.expect(failure(one) in (None, "call_not_open", "cancelled"), f"approved and cancelled at once got {one}")
    await pair.first.cancel()


async def message_and_result(pair: Pair) -> None:
    call = await pair.asked("read", "read")
    pair.first.note_executed(call)
    message = pair.first.opening("read")
    one, other = await pair.race(lambda: pair.first.send(_result(call)), lambda: pair.second.send(message))
    pair.expect(failure(one) in (None, "call_not_open"), f"a result beside a message got {one}")
    pair.expect(len(calls_of(other)) == 1, f"a message beside a result got {other}")
    await pair.first.work_off(other)


async def delete_and_message(pair: Pair) -> None:
    """The session is gone with the message, or begins anew with it: nothing of before is left beside it."""
    pair.it.gone.add(pair.first.session)
    await pair.first.say()
    message = pair.first.opening()
    hard = pair.it.rng.random() < 0.5
    one, _ = await pair.race(lambda: pair.first.send(message), lambda: pair.second.delete(hard))
    pair.expect(
        failure(one) in (None, "cancelled", "interrupted"), f"a message beside the end of its session got {one}"
    )
    history = await pair.it.history(pair.first.session)
    said = [each["content"] for each in history or [] if each["role"] == "user"]
    pair.expect(said in ([], [message["content"]]), f"after its end the session has {said}")
    await pair.first.say()
    again = await pair.it.history(pair.first.session)
    pair.expect(len(again or []) == len(history or []) + 2, "after its end the session does not go on")


RACES: dict[str, Race] = {
    "same result": same_result,
    "same message": same_message,
    "approve and reject": approve_and_reject,
    "decision and cancel": decision_and_cancel,
    "message and result": message_and_result,
    "delete and message": delete_and_message,
}


async def races(setup: Setup) -> list[str]:
    """`rounds` of each kind, on one replica."""
    return await _races(setup, 1)


async def races_of_two(setup: Setup) -> list[str]:
    """`rounds` of each kind, each client on a replica of its own."""
    return await _races(setup, 2)


async def _races(setup: Setup, replicas: int) -> list[str]:
    lease = {"lease_seconds": "2"} if replicas > 1 else {}
    async with world(setup, replicas=replicas, delay=0.03, **lease) as it:
        it.expected |= {"call_not_open", "cancelled", "interrupted"}
        it.asks_once = True
        await it.restart()
        free = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for race in [each for each in RACES.values() for _ in range(setup.rounds)]:
                group.create_task(_one(it, race, free))
        return await it.judge()


async def _one(it: World, race: Race, free: asyncio.Semaphore) -> None:
    async with free:
        first = it.ide(STEADY, at=0)
        with suppress(GaveUp, Abandoned):
            await race(Pair(it, first, it.twin(first, STEADY, at=len(it.replicas) - 1)))


def _result(call: Chunk) -> dict[str, Any]:
    return {"type": "tool_result", "call_id": call["call_id"], "result": f"result of {call['call_id']}"}


def _decision(call: Chunk, decision: str) -> dict[str, Any]:
    return {"type": "hitl_decision", "call_id": call["call_id"], "decision": decision}
