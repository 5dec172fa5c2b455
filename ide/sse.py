"""Parse server-sent events, as far as the service uses them.

httpx-sse (0.4.3) cannot replace this module. It gives each event the last id that came before, and turns each comment
after an id into an event without data. The service sends such comments while a run is quiet.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import NamedTuple


class ServerSentEvent(NamedTuple):
    """One event of a stream."""

    name: str
    data: str
    """The data lines, joined by newlines."""
    id: str | None
    """The id of this event. None: it has none."""


async def parse_events(chunks: AsyncIterable[bytes]) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield the events of a stream of bytes, cut anywhere.

    Comments and unknown fields are ignored, and so is an event that is not complete at the end. Lines end with a
    newline, or with a carriage return and a newline.
    """
    fields: dict[str, list[str]] = {}
    async for line in _iterate_lines(chunks):
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        if fields.keys() & {"event", "data"}:
            yield ServerSentEvent(
                fields.get("event", ["message"])[-1],
                "\n".join(fields.get("data", [])),
                fields.get("id", [None])[-1],
            )
        fields = {}


async def _iterate_lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
