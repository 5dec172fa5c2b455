"""A run's events as a stream of server-sent events."""

import re
from collections.abc import AsyncIterator
from time import monotonic

from starlette.responses import StreamingResponse

from sessions.events import DONE, Event
from sessions.run import Run

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
HEARTBEAT = b": still here\n\n"


ALL = frozenset({"", "tokens", "usage"})


def response(run: Run, patience: float, *, after: int = 0, shown: frozenset[str] = ALL) -> StreamingResponse:
    """`patience`: the longest silence, in seconds; `shown`: what the reader opted in to."""
    return StreamingResponse(_stream(run, patience, after, shown), media_type="text/event-stream", headers=HEADERS)


def nothing() -> StreamingResponse:
    """The stream of a session that never ran."""
    return StreamingResponse(iter([f"event: done\ndata: {DONE}\n\n"]), media_type="text/event-stream", headers=HEADERS)


async def _stream(run: Run, patience: float, after: int, shown: frozenset[str]) -> AsyncIterator[bytes]:
    """Beats as well while all that comes is not shown."""
    spoke = monotonic()
    async for events in run.log.follow(after, patience):
        data = b"".join(_encoded(run.id, event) for event in events if event.opt_in in shown)
        if data or monotonic() - spoke >= patience:
            spoke = monotonic()
            yield data or HEARTBEAT


def _encoded(run_id: str, event: Event) -> bytes:
    return f"id: {run_id}-{event.number}\nevent: {event.name}\ndata: {event.data}\n\n".encode("ascii")


def position(run: Run, last_event_id: str) -> int:
    """The number after which a reader goes on; 0 for an id of another run."""
    run_id, _, number = last_event_id.rpartition("-")
    return int(number) if run_id == run.id and re.fullmatch("[0-9]{1,18}", number) else 0
