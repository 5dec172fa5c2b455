"""Request completions from the model service: retry until the first word, then pass the words on as they come.

If a model is down, the request goes to the fallback model. `decoder` reads an answer; `faults` names what went wrong.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import count
from typing import NamedTuple

import httpx
from langchain_core.messages import AIMessageChunk

from graph.errors import AgentRuntimeError, LLMUnavailable
from graph.llm.circuit_breaker import CircuitBreaker
from graph.llm.decoder import CompletionDecoder
from graph.llm.faults import Fault, fault_from_refusal, fault_from_transport, make_incomplete_fault
from graph.llm.refusals import MAX_ERROR_BYTES, read_refusal
from graph.settings import Settings

log = logging.getLogger("agent_runtime.llm")

DRAIN_SECONDS = 0.25
"""Longest wait for the end of a stream after its [DONE]: a connection that was read to its end can be reused. Chosen,
not measured."""
ERROR_BODY_SECONDS = 5.0
"""Longest wait for the body of a refusal, which usually comes with the head. Without it only the status counts. Chosen,
not measured."""
MIN_JITTER, MAX_JITTER = 0.5, 1.0
"""Random share of the delay that a retry waits, so that requests that failed together are not repeated together."""
FALLBACK_TIME_SHARE = 1 / 2
"""Share of the total time that a model has for its first word if a fallback follows: each of the two gets as much."""


class RequestLimits(NamedTuple):
    """The limits of one request. Times are in seconds."""

    total: float
    """For all attempts together."""
    first_byte: float
    """From the request to the first byte of its answer."""
    idle: float
    """The longest silence within an answer."""
    retries: int
    delay: float
    """Before the first retry; doubled for each one after it."""


class ModelClient:
    """A client of one model service, with a circuit breaker for each model."""

    def __init__(self, url: str, client: Callable[[], httpx.AsyncClient], settings: Settings) -> None:
        """Send requests to `url`. `client` returns the HTTP client of the running event loop."""
        self._url, self.client = url, client
        self._limits = RequestLimits(
            settings.llm_timeout_seconds,
            settings.llm_first_byte_timeout_seconds,
            settings.llm_idle_timeout_seconds,
            settings.llm_retries,
            settings.llm_retry_delay_seconds,
        )
        self._failures, self._seconds = settings.llm_breaker_failures, settings.llm_breaker_seconds
        self._breakers: dict[str, CircuitBreaker] = {}
        self._keys = [key.get_secret_value() for key in (settings.llm_api_key, settings.internal_api_key)]

    async def stream_completion(
        self, models: Sequence[str], request: Callable[[str], bytes]
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """Yield pieces of the text, then one chunk with the rest, of the first model that answers.

        `models` are tried in order; `request` returns the body for a model. A model that another one follows has half
        of the time for its first piece. Raises AgentRuntimeError.
        """
        start = _read_clock()
        deadline = start + self._limits.total
        for model, fallback in zip(models, [*models[1:], ""], strict=True):
            first_deadline = start + self._limits.total * FALLBACK_TIME_SHARE if fallback else deadline
            started = False
            try:
                async with aclosing(self._stream_with_retry(model, request(model), first_deadline, deadline)) as chunks:
                    async for chunk in chunks:
                        started = True
                        yield chunk
                return
            except Fault as fault:
                if started:
                    raise _convert_late_fault(fault) from None
                if not fallback or not fault.can_fall_back:
                    raise fault.error from None
                log.warning("model %s does not answer; the request goes to %s", model, fallback)

    async def _stream_with_retry(
        self, model: str, request: bytes, first_deadline: float, deadline: float
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """Stream the answer of one model; retry as long as nothing was yielded. Raises Fault."""
        breaker = self._breakers.setdefault(model, CircuitBreaker(model, self._failures, self._seconds))
        for attempt in count():
            started = False
            try:
                with breaker.guard_attempt() as record_first_word:
                    async with aclosing(self._stream_once(request, first_deadline, deadline)) as chunks:
                        async for chunk in chunks:
                            if not started:
                                record_first_word()
                            started = True
                            yield _add_model_name(chunk, model)
                return
            except Fault as fault:
                failed = fault
            log.warning("model %s, attempt %d: %s", model, attempt + 1, self._describe_fault(failed))
            wait = max(failed.wait, self._compute_delay(attempt))
            if (
                started
                or not failed.is_retryable
                or attempt >= self._limits.retries
                or _read_clock() + wait >= first_deadline
            ):
                raise failed
            await asyncio.sleep(wait)

    def _describe_fault(self, fault: Fault) -> str:
        """Return the cause for the log: the words of the service, if it refused the request."""
        return fault.refusal.describe(self._keys) if fault.refusal else fault.cause

    def _compute_delay(self, attempt: int) -> float:
        """Return the seconds before the retry that follows attempt number `attempt`, from 0."""
        jitter: float = random.uniform(MIN_JITTER, MAX_JITTER)  # noqa: S311
        return self._limits.delay * 2.0**attempt * jitter

    async def _stream_once(
        self, request: bytes, first_deadline: float, deadline: float
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """Stream the answer to one attempt. Raises Fault."""
        answer = CompletionDecoder()
        try:
            received = self._receive_bytes(request, lambda: deadline if answer.has_begun else first_deadline, deadline)
            async with aclosing(received) as stream:
                async for data in stream:
                    if text := answer.feed(data):
                        yield AIMessageChunk(content=text)
                    if answer.is_done:
                        await _drain_stream(stream)
                        break
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:  # OSError: TimeoutError is one
            if not answer.is_complete:
                raise fault_from_transport(error) from None
        yield answer.finish()

    async def _receive_bytes(
        self, request: bytes, limit: Callable[[], float], deadline: float
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of an answer. Raises Fault for a status that is an error.

        `limit` returns the current time limit. Each read has a timeout of its own: one that spans a `yield` would
        cancel the caller.
        """
        client = self.client()
        next_read_by = min(limit(), _read_clock() + self._limits.first_byte)
        async with _enforce_deadline(next_read_by, deadline):
            response = await client.send(client.build_request("POST", self._url, content=request), stream=True)
        try:
            if not response.is_success:
                refusal = read_refusal(response.status_code, await _read_error_body(response, deadline))
                raise fault_from_refusal(refusal, response.headers.get("retry-after", ""))
            pieces = response.aiter_bytes()
            while True:
                async with _enforce_deadline(next_read_by, deadline):
                    data = await anext(pieces, None)
                if data is None:
                    return
                yield data
                next_read_by = min(limit(), _read_clock() + self._limits.idle)
        finally:
            await response.aclose()


async def _read_error_body(response: httpx.Response, deadline: float) -> bytes:
    """Return the start of the body, or as much of it as comes in time."""
    body = bytearray()
    with suppress(httpx.HTTPError, httpx.StreamError, OSError):
        async with asyncio.timeout_at(min(_read_clock() + ERROR_BODY_SECONDS, deadline)):
            async for data in response.aiter_bytes():
                body += data
                if len(body) >= MAX_ERROR_BYTES:
                    break
    return bytes(body[:MAX_ERROR_BYTES])


@asynccontextmanager
async def _enforce_deadline(moment: float, deadline: float) -> AsyncIterator[None]:
    """Raise TimeoutError if the block reaches `deadline`, httpx.ReadTimeout if it reaches an earlier `moment`."""
    try:
        async with asyncio.timeout_at(min(moment, deadline)):
            yield
    except TimeoutError:
        if moment >= deadline:
            raise
        raise httpx.ReadTimeout("the service was silent") from None


def _read_clock() -> float:
    """Return the time of the running event loop, in seconds."""
    return asyncio.get_running_loop().time()


def _add_model_name(chunk: AIMessageChunk, model: str) -> AIMessageChunk:
    """Add the name of the model that answered to the last chunk."""
    if chunk.chunk_position == "last":
        chunk.response_metadata["model_name"] = model
    return chunk


def _convert_late_fault(fault: Fault) -> AgentRuntimeError:
    """Return the error of a fault after the first word: an answer that could not be completed is incomplete."""
    return make_incomplete_fault(fault.cause).error if isinstance(fault.error, LLMUnavailable) else fault.error


async def _drain_stream(stream: AsyncIterator[bytes]) -> None:
    """Read the rest of a stream, for a short time and whatever it holds."""
    with suppress(httpx.HTTPError, httpx.StreamError, OSError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in stream:
                pass
