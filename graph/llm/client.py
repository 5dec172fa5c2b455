"""Asking the model's service: retries until the first word, then the words as they come; another model if one is down.

Reading an answer is `stream`, what is said when there is none `fault`.
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
from graph.llm.faults import Fault, fault_from_status, fault_from_transport, make_incomplete_fault
from graph.settings import Settings

log = logging.getLogger("agent_runtime.llm")

DRAIN_SECONDS = 0.25
"""For the end of a stream after its [DONE]: a connection read to its end can be used again."""


class RequestLimits(NamedTuple):
    """Seconds, and times."""

    total: float
    first_byte: float
    idle: float
    retries: int
    delay: float
    """Before the first further attempt."""


class ModelClient:
    def __init__(self, url: str, client: Callable[[], httpx.AsyncClient], settings: Settings) -> None:
        """`client`: that of the running event loop."""
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

    async def stream_completion(
        self, models: Sequence[str], request: Callable[[str], bytes]
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """Pieces of the text, then one chunk with the rest, of the first model that answers.

        A model that another one follows has half of the time for its first piece. Raises AgentRuntimeError.
        """
        began = _read_clock()
        deadline = began + self._limits.total
        for model, later in zip(models, [*models[1:], ""], strict=True):
            first = began + self._limits.total / 2 if later else deadline
            started = False
            try:
                async with aclosing(self._stream_with_retry(model, request(model), first, deadline)) as chunks:
                    async for chunk in chunks:
                        started = True
                        yield chunk
                return
            except Fault as fault:
                if started:
                    raise _convert_late_fault(fault) from None
                if not later or not fault.can_fall_back:
                    raise fault.error from None
                log.warning("model %s does not answer; %s is asked", model, later)

    async def _stream_with_retry(
        self, model: str, request: bytes, first_deadline: float, deadline: float
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """Again as long as nothing was yielded. Raises Fault."""
        breaker = self._breakers.setdefault(model, CircuitBreaker(model, self._failures, self._seconds))
        for attempt in count():
            started = False
            try:
                with breaker.guard_attempt() as speaks:
                    async with aclosing(self._stream_once(request, first_deadline, deadline)) as chunks:
                        async for chunk in chunks:
                            if not started:
                                speaks()
                            started = True
                            yield _add_model_name(chunk, model)
                return
            except Fault as fault:
                failed = fault
            log.warning("model %s, attempt %d: %s", model, attempt + 1, failed.cause)
            wait = max(failed.wait, self._compute_delay(attempt))
            if (
                started
                or not failed.is_retryable
                or attempt >= self._limits.retries
                or _read_clock() + wait >= first_deadline
            ):
                raise failed
            await asyncio.sleep(wait)

    def _compute_delay(self, attempt: int) -> float:
        jitter: float = random.uniform(0.5, 1.0)  # noqa: S311
        return self._limits.delay * 2.0**attempt * jitter

    async def _stream_once(
        self, request: bytes, first_deadline: float, deadline: float
    ) -> AsyncGenerator[AIMessageChunk, None]:
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
        """The timeout is set anew for each read: across a yield it would strike whoever reads this.

        `limit`: how long one may go on, as things stand.
        """
        client = self.client()
        begins_by = min(limit(), _read_clock() + self._limits.first_byte)
        async with _enforce_deadline(begins_by, deadline):
            response = await client.send(client.build_request("POST", self._url, content=request), stream=True)
        try:
            if not response.is_success:
                raise fault_from_status(response.status_code, response.headers.get("retry-after", ""))
            received, by = response.aiter_bytes(), begins_by
            while True:
                async with _enforce_deadline(by, deadline):
                    data = await anext(received, None)
                if data is None:
                    return
                yield data
                by = min(limit(), _read_clock() + self._limits.idle)
        finally:
            await response.aclose()


@asynccontextmanager
async def _enforce_deadline(moment: float, deadline: float) -> AsyncIterator[None]:
    """Raises TimeoutError at the deadline, httpx.ReadTimeout at a moment before it."""
    try:
        async with asyncio.timeout_at(min(moment, deadline)):
            yield
    except TimeoutError:
        if moment >= deadline:
            raise
        raise httpx.ReadTimeout("silence") from None


def _read_clock() -> float:
    return asyncio.get_running_loop().time()


def _add_model_name(chunk: AIMessageChunk, model: str) -> AIMessageChunk:
    """The last one tells who answered."""
    if chunk.chunk_position == "last":
        chunk.response_metadata["model_name"] = model
    return chunk


def _convert_late_fault(fault: Fault) -> AgentRuntimeError:
    return make_incomplete_fault(fault.cause).error if isinstance(fault.error, LLMUnavailable) else fault.error


async def _drain_stream(stream: AsyncIterator[bytes]) -> None:
    with suppress(httpx.HTTPError, httpx.StreamError, OSError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in stream:
                pass
