"""A run's events as a stream of server-sent events."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic

from starlette.responses import StreamingResponse
from starlette.types import Message, Send

from sessions.event_log import DONE, Event, TooSlow
from sessions.runs.run import Run

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
HEARTBEAT = b": still here\n\n"
READER_SECONDS = 60
"""How long a reader may take nothing while something waits for it."""
ALL = frozenset({"", "tokens", "usage"})


def response(run: Run, patience: float, *, after: int = 0, shown: frozenset[str] = ALL) -> StreamingResponse:
    """`patience`: the longest silence, in seconds; `shown`: what the reader opted in to."""
    return Stream(_stream(run, patience, after, shown), media_type="text/event-stream", headers=HEADERS)


class Stream(StreamingResponse):
    """Gives up on a reader who takes nothing; the client can join again."""

    async def stream_response(self, send: Send) -> None:
        async def in_time(message: Message) -> None:
            async with asyncio.timeout(READER_SECONDS):
                await send(message)

        with suppress(TimeoutError):
            await super().stream_response(in_time)


def nothing() -> StreamingResponse:
    """The stream of a session that never ran."""
    return StreamingResponse(iter([f"event: done\ndata: {DONE}\n\n"]), media_type="text/event-stream", headers=HEADERS)


async def _stream(run: Run, patience: float, after: int, shown: frozenset[str]) -> AsyncIterator[bytes]:
    """Beats as well while all that comes is not shown. For a reader who is too slow it ends without `done`."""
    spoke = monotonic()
    with suppress(TooSlow):
        async for events in run.log.follow(after, patience):
            data = b"".join(_encoded(run.told_under or run.id, event) for event in events if event.opt_in in shown)
            if data or monotonic() - spoke >= patience:
                spoke = monotonic()
                yield data or HEARTBEAT


def _encoded(run_id: str, event: Event) -> bytes:
    return f"id: {run_id}-{event.number}\nevent: {event.name}\ndata: {event.data}\n\n".encode("ascii")


def position(run: Run, last_event_id: str) -> int:
    """The number after which a reader goes on; 0 for an id of another run."""
    run_id, _, number = last_event_id.rpartition("-")
    return int(number) if run_id == run.id and re.fullmatch("[0-9]{1,18}", number) else 0
