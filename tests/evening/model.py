"""The model's side of the evening: a server that says what is recorded, and judges each request that it gets."""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prompts import AGENTS, CLASSIFIER, ORCHESTRATOR, SUMMARY_PROMPT, TITLE_PROMPT
from tests.evening.recording import Call, Line, Turn
from tests.evening.valid import estimate, faults
from tests.llm_server import Exchange, Reply, Request, Step, calls_raw, chooses, delta, raw, resets, says, sse, status

THE_TITLE = "Вечер над сервисом агентов"
SHORT = 1_000
"""Characters of a message that is sent whole, whatever else is not."""
BEGUN = sse(delta(content="I will "))
HALF_A_CALL = sse(
    delta(tool_calls=[{"index": 0, "id": "half", "function": {"name": "read_file", "arguments": '{"pa'}}])
)
FAULTS: dict[str, Step] = {
    "500": status(500),
    "429": status(429, Retry_After="0"),
    "400": status(400),
    "reset": resets(),
    "reset in the text": resets(BEGUN),
    "reset in a call": resets(BEGUN + HALF_A_CALL),
    "garbage": raw(bytes(range(256)) * 9),
    "html": raw(b"<!doctype html><title>502 Bad Gateway</title>", content_type="text/html"),
    "nothing": says(""),
    "10,000 calls": Reply(tool_calls=calls_raw("echo", '{"text": "a"}').tool_calls * 10_000),
}
BROKEN_OFF = {"reset in the text", "reset in a call"}
"""After words that the user saw."""


@dataclass
class Model:
    """`answer` is for `ScriptedLLM(otherwise=...)`."""

    budget: int
    failures: list[str] = field(default_factory=list)
    """Turn by turn, what was wrong with a request."""
    summaries: list[list[dict[str, Any]]] = field(default_factory=list)
    """What each was to be made of."""
    told: int = 0
    """How many of them a specialist was told of."""
    asked: int = 0
    """Requests of specialists and of the classifier."""
    largest: int = 0
    """Tokens of a request, estimated."""
    titles: list[str] = field(default_factory=list)
    _made: int = 0
    """Summaries that the service has."""
    _failed: bool = False
    """Whether the last one did: then the next may be the same again."""
    _turn: int = 0
    _words: str = ""
    _lines: deque[Line] = field(default_factory=deque)

    def begin(self, turn: Turn) -> None:
        self._turn += 1
        self._words, self._lines = turn.words, deque(turn.model)

    def end(self, failures: Sequence[str]) -> None:
        """`failures`: what went wrong on the user's side."""
        for failure in failures:
            self._fail(failure)
        if self._lines:
            self._fail(f"nobody asked for {[*self._lines]}")

    def restarted(self) -> None:
        """A summary that nobody was told of yet is gone with the service, and is made again."""
        del self.summaries[self.told :]
        self._made = self.told

    def answer(self, request: Request) -> Step:
        prompt, said = (message["content"] for message in request.body["messages"][:2])
        for fault in faults(request.body, self.budget):
            self._fail(fault)
        self.largest = max(self.largest, estimate(request.body))
        match _who(prompt):
            case "summary":
                return self._summary(said)
            case "title":
                self.titles.append(said)
                return says(THE_TITLE)
            case who:
                return self._next(who, request)

    def _summary(self, material: str) -> Step:
        self.summaries.append([json.loads(line) for line in material.splitlines()])
        return says(
            f"{_summary(len(self.summaries))} The user works on the service. " + "Сделано: docs/, policy/, ide/. " * 40
        )

    def _next(self, who: str, request: Request) -> Step:
        self.asked += 1
        said = [message["content"] or "" for message in request.body["messages"] if message["role"] == "user"]
        if len(self._words) <= SHORT and not any(self._words in text for text in said):
            self._fail("the user's own words are missing")
        if who != ORCHESTRATOR and not self._failed and _summary(self._made) not in said[0]:
            self._fail(f"it does not tell summary {self._made}: {said[0][:200]}")
        if not self._lines or self._lines[0].by != who:
            self._fail(f"{who} was asked, but recorded is {[*self._lines][:1]}")
            return status(418)
        self.told = self._made
        line = self._lines.popleft()
        self._failed = bool(line.fault)
        return self._after_summaries(self._said(line))

    def _after_summaries(self, step: Step) -> Step:
        """One that is under way comes first, so that each evening goes the same way."""

        async def answer(exchange: Exchange) -> None:
            await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "summary"))
            self._made = len(self.summaries)
            await step(exchange)

        return answer

    def _said(self, line: Line) -> Step:
        if line.fault:
            return FAULTS[line.fault]
        if line.chooses:
            return chooses(line.chooses)
        reply = says(line.text)
        for place, call in enumerate(line.calls):
            reply &= calls_raw(call.tool, _arguments(call), call.id or f"call_{self._turn}_{self.asked}_{place}")
        return reply

    def _fail(self, what: str) -> None:
        self.failures.append(f"turn {self._turn}, request {self.asked}: {what}")


def _summary(number: int) -> str:
    return f"This is summary {number}." if number else ""


def _arguments(call: Call) -> str:
    return call.args if isinstance(call.args, str) else json.dumps(call.args)


def _who(prompt: str) -> str:
    known = {agent.prompt: name for name, agent in AGENTS.items()}
    for name, text in ((ORCHESTRATOR, CLASSIFIER.prompt), ("summary", SUMMARY_PROMPT), ("title", TITLE_PROMPT)):
        if prompt.startswith(text.partition("$")[0]):
            return name
    return known[prompt]
