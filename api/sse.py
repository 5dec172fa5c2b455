"""A run's events as a stream of server-sent events."""

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
HEARTBEAT = b": still here\n\n"
READER_SECONDS = 60
"""How long a reader may take nothing while something waits for it."""
ALL_OPT_INS = frozenset({"", "tokens", "usage"})


def stream_events(
    run: RunHandle, heartbeat_seconds: float, *, after: int = 0, opt_ins: frozenset[str] = ALL_OPT_INS
) -> StreamingResponse:
    """`patience`: the longest silence, in seconds; `shown`: what the reader opted in to."""
    return EventStreamResponse(
        _encode_stream(run, heartbeat_seconds, after, opt_ins), media_type="text/event-stream", headers=HEADERS
    )


class EventStreamResponse(StreamingResponse):
    """Gives up on a reader who takes nothing; the client can join again."""

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(READER_SECONDS):
                await send(message)

        with suppress(TimeoutError):
            await super().stream_response(send_in_time)


def stream_nothing() -> StreamingResponse:
    """The stream of a session that never ran."""
    return StreamingResponse(
        iter([f"event: done\ndata: {DONE_DATA}\n\n"]), media_type="text/event-stream", headers=HEADERS
    )


async def _encode_stream(
    run: RunHandle, heartbeat_seconds: float, after: int, opt_ins: frozenset[str]
) -> AsyncIterator[bytes]:
    """Beats as well while all that comes is not shown. For a reader who is too slow it ends without `done`."""
    spoke = monotonic()
    with suppress(ReaderTooSlow):
        async for events in run.log.follow(after, heartbeat_seconds):
            data = b"".join(
                _encode_event(run.event_id_prefix or run.id, event) for event in events if event.opt_in in opt_ins
            )
            if data or monotonic() - spoke >= heartbeat_seconds:
                spoke = monotonic()
                yield data or HEARTBEAT


def _encode_event(run_id: str, event: RunEvent) -> bytes:
    return f"id: {run_id}-{event.number}\nevent: {event.name}\ndata: {event.data}\n\n".encode("ascii")


def parse_last_event_id(run: RunHandle, last_event_id: str) -> int:
    """The number after which a reader goes on; 0 for an id of another run."""
    run_id, _, number = last_event_id.rpartition("-")
    return int(number) if run_id == run.id and re.fullmatch("[0-9]{1,18}", number) else 0
