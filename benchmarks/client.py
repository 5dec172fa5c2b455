"""The Gateway, as lean as it can be: one kept connection for each session, no HTTP library to compete for the CPU."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

KEY = "a-key-for-the-benchmarks"
HEAD = (
    "POST /agent/message/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    f"X-Internal-Auth: {KEY}\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
END = b"\r\n0\r\n\r\n"
FILE = "".join(f"VALUE_{n} = {n * 7919}\n" for n in range(40))
"""What the IDE reads, about 700 bytes."""


@dataclass
class Session:
    id: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def turn(self) -> None:
        """One read_file round trip, two requests."""
        call = _final(await self.send(type="user_message", content="What does src/values.py hold?"), "tool_call")
        answer = await self.send(type="tool_result", call_id=call["call_id"], tool_name="read_file", result=FILE)
        _final(answer, "assistant_message")

    async def tokens(self, number: int) -> int:
        """How many pieces the text of so many tokens came in."""
        answer = await self.send({"tokens": True}, type="user_message", content=f"tokens {number}")
        _final(answer, "assistant_message")
        return answer.count(b'"token":')

    async def begin(self, said: str, seen: bytes) -> None:
        """Send a message, and read its stream up to that."""
        self._write({"tokens": True}, type="user_message", content=said)
        await self.reader.readuntil(seen)

    async def send(self, stream: dict[str, bool] | None = None, **message: Any) -> bytes:
        """The whole stream that answers it, with the framing of its chunks."""
        self._write(stream or {}, **message)
        return await self.reader.readuntil(END)

    def _write(self, stream: dict[str, bool], **message: Any) -> None:
        body = json.dumps({"session_id": self.id, "message": message, "stream": stream}).encode()
        self.writer.write((HEAD % len(body)).encode() + body)


async def rest(port: int, session_id: str) -> bytes:
    """What the session's stream tells until it ends; a connection of its own."""
    head = f"GET /sessions/{session_id}/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Internal-Auth: {KEY}\r\n\r\n"
    async with session(port, session_id) as opened:
        opened.writer.write(head.encode())
        return await opened.reader.readuntil(END)


@asynccontextmanager
async def session(port: int, session_id: str) -> AsyncIterator[Session]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        yield Session(session_id, reader, writer)
    finally:
        writer.close()


def _final(stream: bytes, expected: str) -> dict[str, Any]:
    """The chunk before `done`. Raises RuntimeError if it is of another type."""
    lines = [line for line in stream.split(b"\n") if line.startswith(b"data: ")]
    chunk: dict[str, Any] = json.loads(lines[-2].removeprefix(b"data: ")) if len(lines) > 1 else {}
    if chunk.get("type") != expected:
        raise RuntimeError(f"expected {expected}, got {stream[-500:]!r}")
    return chunk
