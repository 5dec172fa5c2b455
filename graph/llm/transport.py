"""Send one request to a model service, and decode its answer as it comes. Every time limit is kept here."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import NoReturn

import httpx
from langchain_core.messages import AIMessageChunk

from graph.llm.decoder import CompletionDecoder
from graph.llm.faults import fault_from_refusal, fault_from_transport
from graph.llm.refusals import MAX_ERROR_BYTES, read_refusal
from graph.settings import Settings

DRAIN_SECONDS = 0.25
"""Longest wait for the end of a stream after its [DONE]: a connection that was read to its end can be reused. Chosen,
not measured."""
ERROR_BODY_SECONDS = 5.0
"""Longest wait for the body of a refusal, which usually comes with the head. Without it only the status counts. Chosen,
not measured."""


class Transport:
    """The way to one model service."""

    def __init__(self, url: str, client: Callable[[], httpx.AsyncClient], settings: Settings) -> None:
        """Send requests to `url`. `client` returns the HTTP client of the running event loop."""
        self._url, self._client = url, client
        self._first_byte_seconds = settings.llm_first_byte_timeout_seconds
        self._idle_seconds = settings.llm_idle_timeout_seconds

    async def stream_answer(
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
        client = self._client()
        next_read_by = min(limit(), read_clock() + self._first_byte_seconds)
        async with _enforce_deadline(next_read_by, deadline):
            response = await client.send(client.build_request("POST", self._url, content=request), stream=True)
        try:
            if not response.is_success:
                refusal = read_refusal(response.status_code, await _read_error_body(response, deadline))
                raise fault_from_refusal(refusal, response.headers.get("retry-after", ""))
            pieces = response.aiter_bytes()
            while True:
                try:  # not `_enforce_deadline`: for each piece, its generator takes a tenth of the time of reading
                    async with asyncio.timeout_at(min(next_read_by, deadline)):
                        data = await anext(pieces, None)
                except TimeoutError:
                    _raise_timeout(next_read_by, deadline)
                if data is None:
                    return
                yield data
                next_read_by = min(limit(), read_clock() + self._idle_seconds)
        finally:
            await response.aclose()


async def _read_error_body(response: httpx.Response, deadline: float) -> bytes:
    """Return the start of the body, or as much of it as comes in time."""
    body = bytearray()
    with suppress(httpx.HTTPError, httpx.StreamError, OSError):
        async with asyncio.timeout_at(min(read_clock() + ERROR_BODY_SECONDS, deadline)):
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
        _raise_timeout(moment, deadline)


def _raise_timeout(moment: float, deadline: float) -> NoReturn:
    """Raise TimeoutError if `deadline` was reached, httpx.ReadTimeout if an earlier `moment` was."""
    if moment >= deadline:
        raise TimeoutError
    raise httpx.ReadTimeout("the service was silent") from None


def read_clock() -> float:
    """Return the time of the running event loop, in seconds."""
    return asyncio.get_running_loop().time()


async def _drain_stream(stream: AsyncIterator[bytes]) -> None:
    """Read the rest of a stream, for a short time and whatever it holds."""
    with suppress(httpx.HTTPError, httpx.StreamError, OSError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in stream:
                pass
