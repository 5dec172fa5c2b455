"""A run's events as a stream of server-sent events."""

from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from sessions.events import DONE, Event
from sessions.run import Run

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
HEARTBEAT = b": still here\n\n"


def response(run: Run, patience: float, *, after: int = 0, tokens: bool = True) -> StreamingResponse:
    """`patience`: the longest silence, in seconds."""
    return StreamingResponse(_stream(run, patience, after, tokens), media_type="text/event-stream", headers=HEADERS)


def nothing() -> StreamingResponse:
    """The stream of a session that never ran."""
    return StreamingResponse(iter([f"event: done\ndata: {DONE}\n\n"]), media_type="text/event-stream", headers=HEADERS)


async def _stream(run: Run, patience: float, after: int, tokens: bool) -> AsyncIterator[bytes]:
    async for events in run.log.follow(after, patience):
        shown = [event for event in events if tokens or not event.is_token]
        if shown or not events:
            yield b"".join(_encoded(run.id, event) for event in shown) or HEARTBEAT


def _encoded(run_id: str, event: Event) -> bytes:
    return f"id: {run_id}-{event.number}\nevent: {event.name}\ndata: {event.data}\n\n".encode("ascii")


def position(run: Run, last_event_id: str) -> int:
    """The number after which a reader goes on; 0 for an id of another run."""
    run_id, _, number = last_event_id.rpartition("-")
    return int(number) if run_id == run.id and number.isdecimal() else 0
