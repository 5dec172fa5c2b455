"""An IDE that works on one session. It records its actions and events, and retries until it has an outcome."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import httpx

from tests.chaos.ledger import Ledger
from tests.chaos.protocol import Marker

Chunk = dict[str, Any]
Message = dict[str, Any]
OUTCOME_TIMEOUT_SECONDS = 120
"""Seconds until a message without an outcome is a violation. The kills of a scenario take up to half of them, when a
replica of a loaded machine needs seconds to start."""
BACKOFF_SECONDS = 0.03
MAX_ATTEMPTS = 20
"""Attempts to send an answer whose run failed visibly."""
STEP_WEIGHTS = {"read": 3, "write": 6, "calc": 2, "say": 1, "pair": 2}


class NoOutcome(Exception):
    """The message has no outcome; the ledger says why."""


class TurnFailed(Exception):
    """The turn failed visibly; the user starts the next one."""


class _HungUp(Exception):
    """The client hangs up, as its behavior demands."""


@dataclass(frozen=True)
class IdeBehavior:
    tokens: bool = False
    parallel: bool = True
    cut_after_bytes: int = 0
    """Most streams are cut after fewer bytes than this; 0: none is."""
    join_probability: float = 0.5
    """Probability that a retry joins the stream instead of sending the message again."""
    switch_probability: float = 0.15
    """Probability that the user picks an agent instead of sending a plain message."""
    extra_words: str = ""
    """Words for the model, added to each turn."""
    max_steps: int = 4
    """The most steps of a turn."""


class IdeIdentity(NamedTuple):
    """The name, the session and the choices of an IDE."""

    name: str
    session: str
    rng: Random
    choose_url: Callable[[], str]
    """Returns the address for the next request."""


class ReceivedEvent(NamedTuple):
    run: str
    number: int
    name: str
    data: str


@dataclass
class PendingMessage:
    """A message that has no outcome yet, and the events that it caused so far."""

    key: str
    message: Message
    is_acknowledged: bool = False
    runs: dict[str, dict[int, ReceivedEvent]] = field(default_factory=dict)
    own_runs: set[str] = field(default_factory=set)
    """The runs that answered the message itself."""
    last_event: ReceivedEvent | None = None
    finished_run: str = ""
    """The run that ended."""


class Ide:
    def __init__(
        self,
        client: IdeIdentity,
        http: httpx.AsyncClient,
        ledger: Ledger,
        habits: IdeBehavior,
        timeout_seconds: float = OUTCOME_TIMEOUT_SECONDS,
    ) -> None:
        """A message without an outcome after `timeout_seconds` is a violation."""
        self._patience = timeout_seconds
        self.session = client.session
        self.turns = 0
        self.cuts = 0
        self.refused = 0
        """Messages that were refused or had failed."""
        self._client, self._rng, self._where = client.name, client.rng, client.choose_url
        self._http, self._ledger, self._habits = http, ledger, habits
        self._earlier: set[str] = set()
        self._streams = 0
        self._results: dict[str, str] = {}
        """The results of the executed calls, by call id."""

    async def play_turns(self, is_over: Callable[[], bool]) -> None:
        with suppress(NoOutcome):
            while not is_over():
                await self.play_turn()

    async def play_turn(self, *steps: str) -> None:
        """Send a message and answer all calls until the turn ends; without steps, choose some."""
        with suppress(TurnFailed):
            await self.answer_calls(await self.send_opening(*(steps or self._choose_steps())))

    def _choose_steps(self) -> list[str]:
        count = self._rng.randint(1, self._habits.max_steps)
        return self._rng.choices(list(STEP_WEIGHTS), list(STEP_WEIGHTS.values()), k=count)

    async def send_opening(self, *steps: str) -> list[Chunk]:
        """Send the user's next message and return its chunks. Raises TurnFailed and NoOutcome."""
        message = self.build_opening(*steps)
        if self._rng.random() < self._habits.switch_probability:
            message |= {"type": "switch_agent", "agent_type": self._rng.choice(["coder", "ask"])}
        chunks = await self.send(message)
        if get_error_code(chunks):
            raise TurnFailed
        return chunks

    def build_opening(self, *steps: str) -> Message:
        self.turns += 1
        content = " ".join([str(Marker(self.session, self.turns)), *steps, self._habits.extra_words]).strip()
        return {"type": "user_message", "content": content, "id": f"message-{self.turns}"}

    async def answer_calls(self, chunks: list[Chunk]) -> None:
        waiting: dict[str, Chunk] = {}
        while waiting := waiting | index_tool_calls(chunks):
            call = self._rng.choice(list(waiting.values()))
            chunks = await (self._send_decision(call) if call["requires_approval"] else self._execute_call(call))
            if not index_tool_calls(chunks).get(call["call_id"]):
                del waiting[call["call_id"]]

    async def _send_decision(self, call: Chunk) -> list[Chunk]:
        how = self._rng.choice(["approve", "approve", "edit", "reject", "agreed", "refused"])
        if how == "agreed":
            return await self._execute_call(call, "agreed")
        if how == "refused":
            return await self._send_answer("tool_result", call, error="User rejected the call")
        more = {"modified_arguments": {"content": f"{call['arguments']['content']}, edited"}} if how == "edit" else {}
        return await self._send_answer("hitl_decision", call, decision=how, **more)

    async def _execute_call(self, call: Chunk, decision: str = "") -> list[Chunk]:
        """Execute a call once and send its result; a call that comes again gets the same result.

        `decision` is the decision of the user of this IDE."""
        if call["call_id"] not in self._results:
            self.record_execution(call, decision)
        return await self._send_answer("tool_result", call, result=self._results[call["call_id"]])

    def record_execution(self, call: Chunk, decision: str = "") -> None:
        about = {"call_id": call["call_id"], "tool": call["tool_name"], "path": call["arguments"].get("path")}
        self._ledger.write("executed", session=self.session, decision=decision, **about)
        self._results[call["call_id"]] = f"result of {call['call_id']}"

    async def _send_answer(self, kind: str, call: Chunk, **more: Any) -> list[Chunk]:
        """Send an answer and return its chunks. Raises TurnFailed if its run failed and closed the call."""
        message = {"type": kind, "call_id": call["call_id"], "tool_name": call["tool_name"], **more}
        has_failed = False
        for _ in range(MAX_ATTEMPTS):
            chunks = await self.send(message)
            code = get_error_code(chunks)
            if code is None:
                return chunks
            if code == "call_not_open" and not has_failed:
                self._report_violation(f"{kind} of {call['call_id']} found it closed: {chunks[-1]['error']}")
            if code == "call_not_open":
                break
            has_failed = True
            await asyncio.sleep(BACKOFF_SECONDS)
        raise TurnFailed

    async def send(self, message: Message) -> list[Chunk]:
        """Send a message until it has an outcome; return the chunks of that. Raises NoOutcome."""
        sent = PendingMessage(get_idempotency_key(message), message)
        self._ledger.write("sent", session=self.session, key=sent.key, message=message)
        until = asyncio.get_running_loop().time() + self._patience
        while not sent.finished_run:
            if asyncio.get_running_loop().time() > until:
                self._report_violation(f"{sent.key} has no outcome after {self._patience:g} s")
                raise NoOutcome
            try:
                async with asyncio.timeout_at(until):
                    await self._post_or_join(sent)
            except TimeoutError:
                continue
            except (httpx.TransportError, _HungUp):
                await asyncio.sleep(BACKOFF_SECONDS)
        self._earlier |= sent.runs.keys()
        chunks = [each for event in _sort_events(sent.runs[sent.finished_run]) if (each := _parse_chunk(event))]
        self._record_outcome(sent, get_error_code(chunks))
        return chunks

    def _record_outcome(self, sent: PendingMessage, code: str | None) -> None:
        if code:
            self.refused += 1
            self._ledger.write("failed", session=self.session, key=sent.key, code=code)
            return
        self._ledger.write("outcome", session=self.session, key=sent.key, run=sent.finished_run)
        if sent.message["type"] == "tool_result":
            self._ledger.write("answered", session=self.session, call_id=sent.message["call_id"])

    async def cancel(self) -> None:
        await self._send_request("POST", f"/sessions/{self.session}/cancel")

    async def delete(self, hard: bool) -> None:
        await self._send_request("DELETE", f"/sessions/{self.session}?hard={str(hard).lower()}")

    async def _send_request(self, method: str, path: str) -> None:
        response = await self._http.request(method, f"{self._where()}{path}")
        if response.status_code != 200:
            self._report_violation(f"{method} {path} was answered with {response.status_code}: {response.text[:200]}")

    async def _post_or_join(self, sent: PendingMessage) -> None:
        if sent.is_acknowledged and self._rng.random() < self._habits.join_probability:
            await self._join_stream(sent)
        else:
            await self._post_message(sent)

    async def _post_message(self, sent: PendingMessage) -> None:
        stream = {"tokens": self._habits.tokens, "parallel_tools": self._habits.parallel}
        body = {"session_id": self.session, "message": sent.message, "stream": stream}
        asked = self._http.stream("POST", f"{self._where()}/agent/message/stream", json=body)
        async with asked as response:
            if not await self._is_accepted(response, sent):
                return
            if not sent.is_acknowledged:
                sent.is_acknowledged = True
                self._ledger.write("acknowledged", session=self.session, key=sent.key)
            async for event in self._read_events(response, sent):
                sent.own_runs.add(event.run)

    async def _join_stream(self, sent: PendingMessage) -> None:
        last = {"Last-Event-ID": f"{sent.last_event.run}-{sent.last_event.number}"} if sent.last_event else {}
        address = f"{self._where()}/sessions/{self.session}/stream"
        params = {"tokens": self._habits.tokens}
        async with self._http.stream("GET", address, headers=last, params=params) as response:
            if not await self._is_accepted(response, sent):
                return
            async for event in self._read_events(response, sent):
                if event.run in self._earlier or not event.run:
                    self._report_violation(f"{sent.key} was acknowledged, and its session knows only the run before it")
                    raise NoOutcome
        if sent.finished_run and sent.finished_run not in sent.own_runs:
            sent.finished_run = ""  # whose run it was is certain only when the message itself was answered with it

    async def _is_accepted(self, response: httpx.Response, sent: PendingMessage) -> bool:
        if response.status_code == 200:
            return True
        self.refused += 1
        if response.status_code == 503 and "retry-after" in response.headers:
            await asyncio.sleep(BACKOFF_SECONDS)
            return False
        await response.aread()
        self._report_violation(f"{sent.key} was answered with {response.status_code}: {response.text[:200]}")
        raise NoOutcome

    async def _read_events(self, response: httpx.Response, sent: PendingMessage) -> AsyncIterator[ReceivedEvent]:
        self._streams += 1
        async for event in _parse_events(self._read_bytes(response)):
            about = event._asdict() | {"session": self.session, "stream": f"{self._client}/{self._streams}"}
            self._ledger.write("event", durable=False, **about)
            sent.runs.setdefault(event.run, {})[event.number] = event
            sent.last_event = event
            if event.name == "done":
                sent.finished_run = event.run
            yield event

    async def _read_bytes(self, response: httpx.Response) -> AsyncIterator[bytes]:
        left = (
            self._rng.randrange(self._habits.cut_after_bytes)
            if self._habits.cut_after_bytes and self._rng.random() < 0.8
            else None
        )
        async for data in response.aiter_raw():
            if left is not None and left < len(data):
                self.cuts += 1
                yield data[:left]
                raise _HungUp
            left = None if left is None else left - len(data)
            yield data

    def _report_violation(self, sentence: str) -> None:
        self._ledger.write("violation", session=self.session, sentence=sentence)


async def _parse_events(pieces: AsyncIterator[bytes]) -> AsyncIterator[ReceivedEvent]:
    """Yield the complete events of a stream."""
    rest = b""
    async for piece in pieces:
        *blocks, rest = (rest + piece).split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.decode("ascii").split("\n") if line and line[0] != ":")
            if "data" in fields:
                run, _, number = fields.get("id", "-0").rpartition("-")
                yield ReceivedEvent(run, int(number), fields["event"], fields["data"])


def _sort_events(events: dict[int, ReceivedEvent]) -> list[ReceivedEvent]:
    return [events[number] for number in sorted(events)]


def _parse_chunk(event: ReceivedEvent) -> Chunk | None:
    chunk: Chunk = json.loads(event.data)
    return chunk if event.name != "done" else None


def get_idempotency_key(message: Message) -> str:
    """Return the key that a message shares with its retries only."""
    if "id" in message:
        return str(message["id"])
    return ":".join(str(message[name]) for name in ("type", "call_id", "decision") if name in message)


def index_tool_calls(chunks: list[Chunk]) -> dict[str, Chunk]:
    return {chunk["call_id"]: chunk for chunk in chunks if chunk["type"] == "tool_call"}


def get_error_code(chunks: list[Chunk]) -> str | None:
    """Return the code of the error that ended a stream, or None."""
    last = chunks[-1] if chunks else {}
    return str(last["metadata"]["code"]) if last.get("type") == "error" and last["is_final"] else None
