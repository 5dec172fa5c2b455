"""Scenarios with two simultaneous requests of one session: the outcome is as if one of them had been first.

Each race has a session of its own and two clients. With two replicas, each client uses one of them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from tests.chaos.ide import Chunk, Ide, IdeBehavior, NoOutcome, TurnFailed, get_error_code, index_tool_calls
from tests.chaos.world import ScenarioSetup, World, open_world

MAX_CONCURRENT_RACES = 4
MAX_DELAY_SECONDS = 0.02
"""The most seconds between the two requests."""
STEADY_BEHAVIOR = IdeBehavior(join_probability=0, switch_probability=0, parallel=False)


class ClientPair(NamedTuple):
    """Two clients of one session."""

    world: World
    first: Ide
    second: Ide

    async def race_requests(
        self, one: Callable[[], Awaitable[Any]], other: Callable[[], Awaitable[Any]]
    ) -> tuple[Any, Any]:
        """Send both requests and return both answers. The seed decides which one starts first, and by how much."""
        delays = [0, self.world.rng.uniform(0, MAX_DELAY_SECONDS)]
        self.world.rng.shuffle(delays)
        return await asyncio.gather(_start_later(delays[0], one), _start_later(delays[1], other))

    async def request_call(self, *steps: str) -> Chunk:
        """Start a turn and return its first call. Raises NoOutcome."""
        calls = list(index_tool_calls(await self.first.send_opening(*steps)).values())
        self.expect_condition(len(calls) == 1, f"the model asked for one call, and {len(calls)} came")
        if not calls:
            raise NoOutcome
        return calls[0]

    def expect_condition(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.world.findings.append(f"{self.first.session}: {sentence}")


async def _start_later(seconds: float, work: Callable[[], Awaitable[Any]]) -> Any:
    await asyncio.sleep(seconds)
    return await work()


Race = Callable[[ClientPair], Awaitable[None]]


async def send_same_result(pair: ClientPair) -> None:
    call = await pair.request_call("read")
    message = _build_result(call)
    pair.first.record_execution(call)
    one, other = await pair.race_requests(lambda: pair.first.send(message), lambda: pair.second.send(message))
    pair.expect_condition(one == other and get_error_code(one) is None, f"one result got {one} and {other}")


async def send_same_message(pair: ClientPair) -> None:
    message = pair.first.build_opening("read")
    one, other = await pair.race_requests(lambda: pair.first.send(message), lambda: pair.second.send(message))
    pair.expect_condition(one == other and len(index_tool_calls(one)) == 1, f"one message got {one} and {other}")
    await pair.first.answer_calls(one)


async def approve_and_reject(pair: ClientPair) -> None:
    call = await pair.request_call("write")
    one, other = await pair.race_requests(
        lambda: pair.first.send(_build_decision(call, "approve")),
        lambda: pair.second.send(_build_decision(call, "reject")),
    )
    lost = [code for code in (get_error_code(one), get_error_code(other)) if code]
    pair.expect_condition(lost == ["call_not_open"], f"approved and rejected at once got {one} and {other}")
    await pair.first.answer_calls(one)


async def decide_and_cancel(pair: ClientPair) -> None:
    call = await pair.request_call("write")
    one, _ = await pair.race_requests(lambda: pair.first.send(_build_decision(call, "approve")), pair.second.cancel)
    pair.expect_condition(
        get_error_code(one) in (None, "call_not_open", "cancelled"), f"approved and cancelled at once got {one}"
    )
    await pair.first.cancel()


async def send_message_and_result(pair: ClientPair) -> None:
    call = await pair.request_call("read", "read")
    pair.first.record_execution(call)
    message = pair.first.build_opening("read")
    one, other = await pair.race_requests(
        lambda: pair.first.send(_build_result(call)), lambda: pair.second.send(message)
    )
    pair.expect_condition(get_error_code(one) in (None, "call_not_open"), f"a result beside a message got {one}")
    pair.expect_condition(len(index_tool_calls(other)) == 1, f"a message beside a result got {other}")
    await pair.first.answer_calls(other)


async def delete_and_send(pair: ClientPair) -> None:
    """Delete the session beside a message: it is gone or starts again with the message, and nothing older is left."""
    pair.world.deleted_sessions.add(pair.first.session)
    await pair.first.send_opening()
    message = pair.first.build_opening()
    hard = pair.world.rng.random() < 0.5
    one, _ = await pair.race_requests(lambda: pair.first.send(message), lambda: pair.second.delete(hard))
    pair.expect_condition(
        get_error_code(one) in (None, "cancelled", "interrupted"), f"a message beside the end of its session got {one}"
    )
    history = await pair.world.fetch_history(pair.first.session)
    said = [each["content"] for each in history or [] if each["role"] == "user"]
    pair.expect_condition(said in ([], [message["content"]]), f"after its end the session has {said}")
    await pair.first.send_opening()
    again = await pair.world.fetch_history(pair.first.session)
    pair.expect_condition(len(again or []) == len(history or []) + 2, "after its end the session does not go on")


RACES: dict[str, Race] = {
    "same result": send_same_result,
    "same message": send_same_message,
    "approve and reject": approve_and_reject,
    "decision and cancel": decide_and_cancel,
    "message and result": send_message_and_result,
    "delete and message": delete_and_send,
}


async def race_on_one_replica(setup: ScenarioSetup) -> list[str]:
    """Run `rounds` races of each kind on one replica."""
    return await _race_all_kinds(setup, 1)


async def race_on_two_replicas(setup: ScenarioSetup) -> list[str]:
    """Run `rounds` races of each kind, with each client on a replica of its own."""
    return await _race_all_kinds(setup, 2)


async def _race_all_kinds(setup: ScenarioSetup, replicas: int) -> list[str]:
    lease = {"lease_seconds": "2"} if replicas > 1 else {}
    async with open_world(setup, replicas=replicas, delay=0.03, **lease) as it:
        it.expected_codes |= {"call_not_open", "cancelled", "interrupted"}
        it.has_no_retries = True
        await it.restart_replicas()
        free = asyncio.Semaphore(MAX_CONCURRENT_RACES)
        async with asyncio.TaskGroup() as group:
            for race in [each for each in RACES.values() for _ in range(setup.rounds)]:
                group.create_task(_start_race(it, race, free))
        return await it.judge_outcome()


async def _start_race(it: World, race: Race, free: asyncio.Semaphore) -> None:
    async with free:
        first = it.add_ide(STEADY_BEHAVIOR, at=0)
        with suppress(NoOutcome, TurnFailed):
            await race(ClientPair(it, first, it.add_twin(first, STEADY_BEHAVIOR, at=len(it.replicas) - 1)))


def _build_result(call: Chunk) -> dict[str, Any]:
    return {"type": "tool_result", "call_id": call["call_id"], "result": f"result of {call['call_id']}"}


def _build_decision(call: Chunk, decision: str) -> dict[str, Any]:
    return {"type": "hitl_decision", "call_id": call["call_id"], "decision": decision}
