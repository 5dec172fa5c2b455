"""Server-sent events, as far as the service uses them."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import NamedTuple


class ServerSentEvent(NamedTuple):
    name: str
    data: str
    id: str | None


async def parse_events(chunks: AsyncIterable[bytes]) -> AsyncGenerator[ServerSentEvent, None]:
    """Comments and unknown fields are passed over, as is an event that the stream breaks off in."""
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
