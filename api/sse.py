"""Stream the events of a run as server-sent events."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic

from starlette.responses import StreamingResponse
from starlette.types import Message, Send

from sessions.event_log import DONE_DATA, ReaderTooSlow, RunEvent
from sessions.runs.run import RunHandle

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""No cache keeps a stream, and nginx does not hold it back."""
HEARTBEAT = b": still here\n\n"
"""A comment, which clients skip. It keeps their read timeout and the proxies between from ending a quiet stream."""
READER_SECONDS = 60
"""The time that a reader may read nothing while an event waits for it; then its connection is released.

As long as the Gateway waits for a line of ours; chosen, not measured.
"""
ALL_OPT_INS = frozenset({"", "tokens", "usage"})
"""The values of `RunEvent.opt_in`; the empty one is for events that every reader gets."""
EVENT_NUMBER_PATTERN = "[0-9]{1,18}"
"""At most 18 digits, so that a number fits into 64 bits; a client could send any number of them."""


def stream_events(
    run: RunHandle, heartbeat_seconds: float, *, after: int = 0, opt_ins: frozenset[str] = ALL_OPT_INS
) -> StreamingResponse:
    """Return a stream of the run's events after number `after`, of those kinds that the reader opted in to.

    A heartbeat is sent when nothing else was for `heartbeat_seconds`.
    """
    return EventStreamResponse(
        _encode_stream(run, heartbeat_seconds, after, opt_ins), media_type="text/event-stream", headers=HEADERS
    )


class EventStreamResponse(StreamingResponse):
    """A stream that ends when its reader reads nothing for `READER_SECONDS`; the client can join the run again."""

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(READER_SECONDS):
                await send(message)

        with suppress(TimeoutError):
            await super().stream_response(send_in_time)


def stream_nothing() -> StreamingResponse:
    """Return the stream of a session without runs: `done` alone."""
    return StreamingResponse(
        iter([f"event: done\ndata: {DONE_DATA}\n\n"]), media_type="text/event-stream", headers=HEADERS
    )


async def _encode_stream(
    run: RunHandle, heartbeat_seconds: float, after: int, opt_ins: frozenset[str]
) -> AsyncIterator[bytes]:
    """Yield the events as text; heartbeats also while the reader has opted in to none of the events that come.

    For a reader that is too slow, the stream ends without `done`.
    """
    last_sent = monotonic()
    with suppress(ReaderTooSlow):
        async for events in run.log.follow(after, heartbeat_seconds):
            data = b"".join(
                _encode_event(run.event_id_prefix or run.id, event) for event in events if event.opt_in in opt_ins
            )
            if data or monotonic() - last_sent >= heartbeat_seconds:
                last_sent = monotonic()
                yield data or HEARTBEAT


def _encode_event(run_id: str, event: RunEvent) -> bytes:
    return f"id: {run_id}-{event.number}\nevent: {event.name}\ndata: {event.data}\n\n".encode("ascii")


def parse_last_event_id(run: RunHandle, last_event_id: str) -> int:
    """Return the number after which a reader continues; 0, the start of the run, for the id of another run."""
    run_id, _, number = last_event_id.rpartition("-")
    return int(number) if run_id == run.id and re.fullmatch(EVENT_NUMBER_PATTERN, number) else 0
