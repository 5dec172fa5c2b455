"""The model's side of the evening: a server that plays the recording and judges each request."""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prompts import AGENTS, CLASSIFIER, ORCHESTRATOR, SUMMARY_PROMPT, TITLE_PROMPT
from tests.evening.recording import RecordedModelCall, RecordedToolCall, RecordedTurn
from tests.evening.valid import estimate_tokens, find_faults
from tests.support.llm_server import (
    Exchange,
    LLMRequest,
    Responder,
    ScriptedReply,
    build_delta,
    encode_sse,
    reset_after,
    respond_choice,
    respond_raw,
    respond_raw_tool_call,
    respond_status,
    respond_text,
)

EXPECTED_TITLE = "Вечер над сервисом агентов"
SHORT_TEXT_LENGTH = 1_000
"""Characters of a message that is always sent whole."""
STREAM_START = encode_sse(build_delta(content="I will "))
PARTIAL_CALL = encode_sse(
    build_delta(tool_calls=[{"index": 0, "id": "half", "function": {"name": "read_file", "arguments": '{"pa'}}])
)
FAULTS: dict[str, Responder] = {
    "500": respond_status(500),
    "429": respond_status(429, Retry_After="0"),
    "400": respond_status(400),
    "reset": reset_after(),
    "reset in the text": reset_after(STREAM_START),
    "reset in a call": reset_after(STREAM_START + PARTIAL_CALL),
    "garbage": respond_raw(bytes(range(256)) * 9),
    "html": respond_raw(b"<!doctype html><title>502 Bad Gateway</title>", content_type="text/html"),
    "nothing": respond_text(""),
    "10,000 calls": ScriptedReply(tool_calls=respond_raw_tool_call("echo", '{"text": "a"}').tool_calls * 10_000),
}
MIDSTREAM_FAULTS = {"reset in the text", "reset in a call"}
"""Faults after words that the user saw."""


@dataclass
class EveningModel:
    """A model that plays the recording; `answer_request` is for `ScriptedLLM(otherwise=...)`."""

    budget: int
    failures: list[str] = field(default_factory=list)
    """The faults of requests, in order."""
    summaries: list[list[dict[str, Any]]] = field(default_factory=list)
    """The transcript of each requested summary."""
    used_summaries: int = 0
    """Summaries that a specialist received."""
    request_count: int = 0
    """Requests of specialists and of the classifier."""
    largest_request: int = 0
    """Tokens of a request, estimated."""
    titles: list[str] = field(default_factory=list)
    _stored_summaries: int = 0
    """Summaries that the service has."""
    _has_failed: bool = False
    """The last request failed, so the next one may be its repetition."""
    _turn_number: int = 0
    _user_text: str = ""
    _lines: deque[RecordedModelCall] = field(default_factory=deque)

    def begin_turn(self, turn: RecordedTurn) -> None:
        self._turn_number += 1
        self._user_text, self._lines = turn.user_text, deque(turn.model)

    def end_turn(self, failures: Sequence[str]) -> None:
        """Record the failures on the user's side, and the lines that nobody requested."""
        for failure in failures:
            self._record_failure(failure)
        if self._lines:
            self._record_failure(f"nobody asked for {[*self._lines]}")

    def discard_unused_summaries(self) -> None:
        """Forget the summaries that no specialist received: they ended with the service, and are made again."""
        del self.summaries[self.used_summaries :]
        self._stored_summaries = self.used_summaries

    def answer_request(self, request: LLMRequest) -> Responder:
        prompt, said = (message["content"] for message in request.body["messages"][:2])
        for fault in find_faults(request.body, self.budget):
            self._record_failure(fault)
        self.largest_request = max(self.largest_request, estimate_tokens(request.body))
        match _identify_caller(prompt):
            case "summary":
                return self._answer_summary(said)
            case "title":
                self.titles.append(said)
                return respond_text(EXPECTED_TITLE)
            case who:
                return self._answer_next_line(who, request)

    def _answer_summary(self, material: str) -> Responder:
        self.summaries.append([json.loads(line) for line in material.splitlines()])
        return respond_text(
            f"{_format_summary(len(self.summaries))} The user works on the service. "
            + "Сделано: docs/, policy/, ide/. " * 40
        )

    def _answer_next_line(self, who: str, request: LLMRequest) -> Responder:
        self.request_count += 1
        said = [message["content"] or "" for message in request.body["messages"] if message["role"] == "user"]
        if len(self._user_text) <= SHORT_TEXT_LENGTH and not any(self._user_text in text for text in said):
            self._record_failure("the user's own words are missing")
        if who != ORCHESTRATOR and not self._has_failed and _format_summary(self._stored_summaries) not in said[0]:
            self._record_failure(f"it does not tell summary {self._stored_summaries}: {said[0][:200]}")
        if not self._lines or self._lines[0].by != who:
            self._record_failure(f"{who} was asked, but recorded is {[*self._lines][:1]}")
            return respond_status(418)
        self.used_summaries = self._stored_summaries
        line = self._lines.popleft()
        self._has_failed = bool(line.fault)
        return self._wait_for_summaries(self._build_reply(line))

    def _wait_for_summaries(self, step: Responder) -> Responder:
        """Wait for a summary that is being made before the step, so that every evening is the same."""

        async def respond(exchange: Exchange) -> None:
            await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "summary"))
            self._stored_summaries = len(self.summaries)
            await step(exchange)

        return respond

    def _build_reply(self, line: RecordedModelCall) -> Responder:
        if line.fault:
            return FAULTS[line.fault]
        if line.chooses:
            return respond_choice(line.chooses)
        reply = respond_text(line.text)
        for place, call in enumerate(line.calls):
            reply &= respond_raw_tool_call(
                call.tool, _encode_arguments(call), call.id or f"call_{self._turn_number}_{self.request_count}_{place}"
            )
        return reply

    def _record_failure(self, what: str) -> None:
        self.failures.append(f"turn {self._turn_number}, request {self.request_count}: {what}")


def _format_summary(number: int) -> str:
    return f"This is summary {number}." if number else ""


def _encode_arguments(call: RecordedToolCall) -> str:
    return call.args if isinstance(call.args, str) else json.dumps(call.args)


def _identify_caller(prompt: str) -> str:
    known = {agent.prompt: name for name, agent in AGENTS.items()}
    for name, text in ((ORCHESTRATOR, CLASSIFIER.prompt), ("summary", SUMMARY_PROMPT), ("title", TITLE_PROMPT)):
        if prompt.startswith(text.partition("$")[0]):
            return name
    return known[prompt]
