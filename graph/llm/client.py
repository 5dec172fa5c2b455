"""Request completions from the model service: retry until the first word, then pass the words on as they come.

If a model is down, the request goes to the fallback model. `transport` makes one attempt; `faults` names what went
wrong.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import httpx
from langchain_core.messages import AIMessageChunk

from graph.context.model_limits import ModelLimits
from graph.errors import AgentRuntimeError, ContextOverflow, LLMUnavailable
from graph.llm.circuit_breaker import CircuitBreaker
from graph.llm.completion_request import CompletionRequest
from graph.llm.faults import Fault, make_incomplete_fault, make_overflow_error
from graph.llm.message_encoding import FILLABLE_FIELDS, FieldChanges
from graph.llm.overflow import Overflow
from graph.llm.refused_fields import (
    find_missed_field,
    find_refused_field,
    find_refused_message_field,
    has_doubted_fields,
)
from graph.llm.tool_streaming import ToolStreaming
from graph.llm.transport import Transport, read_clock
from graph.settings import Settings

log = logging.getLogger("agent_runtime.llm")

MIN_JITTER, MAX_JITTER = 0.5, 1.0
"""Random share of the delay that a retry waits, so that requests that failed together are not repeated together."""
FALLBACK_TIME_SHARE = 1 / 2
"""Share of the total time that a model has for its first word if a fallback follows: each of the two gets as much."""


class ModelClient:
    """A client of one model service, with a circuit breaker for each model."""

    def __init__(self, url: str, client: Callable[[], httpx.AsyncClient], settings: Settings) -> None:
        """Send requests to `url`. `client` returns the HTTP client of the running event loop."""
        self.client = client
        self._streams = ToolStreaming(Transport(url, client, settings))
        self._total_seconds = settings.llm_timeout_seconds
        self._retries, self._delay = settings.llm_retries, settings.llm_retry_delay_seconds
        self._failures, self._seconds = settings.llm_breaker_failures, settings.llm_breaker_seconds
        self._breakers: dict[str, CircuitBreaker] = {}
        self._refused_fields: defaultdict[str, set[str]] = defaultdict(set)
        """The fields that a model does not accept, by model. The settings and the agents name all models."""
        self._missed_fields: defaultdict[str, set[str]] = defaultdict(set)
        """The fields that a model requires of every message with calls, by model."""
        self.limits = ModelLimits()
        self._keys = [key.get_secret_value() for key in (settings.llm_api_key, settings.internal_api_key)]

    async def stream_completion(
        self, models: Sequence[str], request: CompletionRequest
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """Yield pieces of the text, then one chunk with the rest, of the first model that answers.

        `models` are tried in order. A model that another one follows has half of the time for its first piece. Raises
        AgentRuntimeError.
        """
        start = read_clock()
        deadline = start + self._total_seconds
        overflow: ContextOverflow | None = None
        for model, fallback in zip(models, [*models[1:], ""], strict=True):
            first_deadline = start + self._total_seconds * FALLBACK_TIME_SHARE if fallback else deadline
            started = False
            try:
                if model != models[0]:
                    self._require_room(model, request)
                async with aclosing(self._stream_with_retry(model, request, first_deadline, deadline)) as chunks:
                    async for chunk in chunks:
                        started = True
                        yield chunk
                return
            except Fault as fault:
                if started:
                    raise _convert_late_fault(fault) from None
                overflow = _choose_overflow(overflow, fault.error)
                if not fallback or not fault.can_fall_back:
                    raise (overflow or fault.error) from None
                log.warning("model %s does not answer; the request goes to %s", model, fallback)

    async def _stream_with_retry(
        self, model: str, request: CompletionRequest, first_deadline: float, deadline: float
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """Stream the answer of one model; retry as long as nothing was yielded. Raises Fault."""
        breaker = self._breakers.setdefault(model, CircuitBreaker(model, self._failures, self._seconds))
        attempt, doubted = 0, frozenset[str]()
        while True:
            started = False
            changes = FieldChanges(doubted | self._refused_fields[model], frozenset(self._missed_fields[model]))
            try:
                with breaker.guard_attempt() as record_first_word:
                    async with aclosing(
                        self._streams.stream_answer(model, request, changes, first_deadline, deadline)
                    ) as chunks:
                        async for chunk in chunks:
                            if not started:
                                record_first_word()
                            started = True
                            yield self._complete_chunk(chunk, model, request)
                return
            except Fault as fault:
                failed = fault
            log.warning("model %s, attempt %d: %s", model, attempt + 1, self._describe_fault(failed))
            self._learn_overflow(model, failed, request)
            if not started and self._fill_missed_field(model, failed, request, changes):
                continue
            if not started and self._leave_out_refused_field(model, failed, request, changes):
                continue
            if not started and not doubted and (doubted := _find_doubted_fields(model, failed, request)):
                continue
            wait = max(failed.wait, self._compute_delay(attempt))
            if started or not failed.is_retryable or attempt >= self._retries or read_clock() + wait >= first_deadline:
                raise failed
            await asyncio.sleep(wait)
            attempt += 1

    def _require_room(self, model: str, request: CompletionRequest) -> None:
        """Raise Fault if the request is known to be too large for the model."""
        estimated = request.estimate_tokens()
        if self.limits.is_too_large(model, estimated):
            error = make_overflow_error(Overflow())
            error.budget = self.limits.compute_budget(model, estimated)
            raise Fault(error, "too large", is_retryable=False)

    def _learn_overflow(self, model: str, fault: Fault, request: CompletionRequest) -> None:
        """Learn the room of the model from a refusal of its size, and put what is left into the error."""
        if isinstance(error := fault.error, ContextOverflow):
            error.budget = self.limits.record_overflow(model, request.estimate_tokens(), error.limit, error.counted)

    def _complete_chunk(self, chunk: AIMessageChunk, model: str, request: CompletionRequest) -> AIMessageChunk:
        """Add the name of the model that answered to the last chunk, and learn from its usage."""
        if chunk.chunk_position == "last":
            chunk.response_metadata["model_name"] = model
            if usage := chunk.usage_metadata:
                self.limits.record_usage(model, request.estimate_tokens(), usage["input_tokens"])
        return chunk

    def _leave_out_refused_field(
        self, model: str, fault: Fault, request: CompletionRequest, changes: FieldChanges
    ) -> bool:
        """Leave the field that the fault names out of all further requests to the model. Return False if there is none.

        `changes` are those of the refused request.
        """
        if not fault.refusal:
            return False
        sent = {name: value for name, value in request.fields.items() if name not in changes.without}
        in_messages = request.provider_fields(model) - changes.without
        name = find_refused_field(fault.refusal, sent) or find_refused_message_field(fault.refusal, in_messages)
        if name and name not in self._refused_fields[model]:
            self._refused_fields[model].add(name)
            log.warning("model %s does not accept %s; its requests go without it from now on", model, name)
        return bool(name)

    def _fill_missed_field(self, model: str, fault: Fault, request: CompletionRequest, changes: FieldChanges) -> bool:
        """Fill the field that the fault misses in all further requests to the model. Return False if there is none.

        A conversation that another model began would end with such a refusal.
        """
        fields = [name for name in FILLABLE_FIELDS if name not in changes.filled | changes.without]
        name = find_missed_field(fault.refusal, fields) if fault.refusal else ""
        if not name or not request.lacks_field(name, model, changes):
            return False
        if name not in self._missed_fields[model]:
            self._missed_fields[model].add(name)
            log.warning("model %s requires %s; messages of other models get a placeholder from now on", model, name)
        return True

    def _describe_fault(self, fault: Fault) -> str:
        """Return the cause for the log: the words of the service, if it refused the request."""
        return fault.refusal.describe(self._keys) if fault.refusal else fault.cause

    def _compute_delay(self, attempt: int) -> float:
        """Return the seconds before the retry that follows attempt number `attempt`, from 0."""
        jitter: float = random.uniform(MIN_JITTER, MAX_JITTER)  # noqa: S311
        return self._delay * 2.0**attempt * jitter


def _choose_overflow(before: ContextOverflow | None, error: AgentRuntimeError) -> ContextOverflow | None:
    """Return the overflow that leaves less room: a request that fits it fits both models."""
    if not isinstance(error, ContextOverflow):
        return before
    return error if before is None or error.budget < before.budget else before


def _find_doubted_fields(model: str, fault: Fault, request: CompletionRequest) -> frozenset[str]:
    """Return the fields of messages to leave out once, if the service does not believe them any more.

    A conversation would end with such a refusal: its messages are sent with each request.
    """
    if not fault.refusal or not has_doubted_fields(fault.refusal):
        return frozenset()
    if names := request.provider_fields(model):
        log.warning("model %s does not accept what it signed; the request is repeated without it", model)
    return frozenset(names)


def _convert_late_fault(fault: Fault) -> AgentRuntimeError:
    """Return the error of a fault after the first word: an answer that could not be completed is incomplete."""
    return make_incomplete_fault(fault.cause).error if isinstance(fault.error, LLMUnavailable) else fault.error
