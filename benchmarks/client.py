"""A lean Gateway: one kept connection for each session, and no HTTP library that competes for the CPU."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

API_KEY = "a-key-for-the-benchmarks"
REQUEST_HEAD = (
    "POST /agent/message/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    f"X-Internal-Auth: {API_KEY}\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
STREAM_END = b"\r\n0\r\n\r\n"
FILE_CONTENT = "".join(f"VALUE_{n} = {n * 7919}\n" for n in range(40))
"""The file that the IDE reads, about 700 bytes."""
QUESTION = "What does src/values.py hold?"
STREAM_LIMIT = 2**24
"""Bytes of a stream, 16 MB. A stream of 2,000 tokens takes some hundred KB."""


@dataclass
class GatewaySession:
    """A session and its own connection."""

    id: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def execute_turn(self) -> None:
        """Make one read_file round trip: two requests. Raises RuntimeError if an answer is of another type."""
        call = _parse_final_chunk(await self.send_message(type="user_message", content=QUESTION), "tool_call")
        answer = await self.send_message(
            type="tool_result", call_id=call["call_id"], tool_name="read_file", result=FILE_CONTENT
        )
        _parse_final_chunk(answer, "assistant_message")

    async def request_tokens(self, number: int) -> int:
        """Request a text of `number` tokens, and return in how many pieces it came."""
        answer = await self.send_message({"tokens": True}, type="user_message", content=f"tokens {number}")
        _parse_final_chunk(answer, "assistant_message")
        return answer.count(b'"token":')

    async def start_stream(self, content: str, until: bytes) -> None:
        """Send a message, and read its stream up to the bytes `until`."""
        self._write_request({"tokens": True}, type="user_message", content=content)
        await self.reader.readuntil(until)

    async def send_message(self, stream: dict[str, bool] | None = None, **message: Any) -> bytes:
        """Send a message, and return the whole stream of its answer, with the framing of HTTP chunks."""
        self._write_request(stream or {}, **message)
        return await self.reader.readuntil(STREAM_END)

    def _write_request(self, stream: dict[str, bool], **message: Any) -> None:
        body = json.dumps({"session_id": self.id, "message": message, "stream": stream}).encode()
        self.writer.write((REQUEST_HEAD % len(body)).encode() + body)


async def join_stream(port: int, session_id: str) -> bytes:
    """Read the session's stream to its end, on a connection of its own."""
    head = f"GET /sessions/{session_id}/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Internal-Auth: {API_KEY}\r\n\r\n"
    async with open_session(port, session_id) as opened:
        opened.writer.write(head.encode())
        return await opened.reader.readuntil(STREAM_END)


@asynccontextmanager
async def open_session(port: int, session_id: str) -> AsyncIterator[GatewaySession]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=STREAM_LIMIT)
    try:
        yield GatewaySession(session_id, reader, writer)
    finally:
        writer.close()


def _parse_final_chunk(stream: bytes, expected: str) -> dict[str, Any]:
    """Return the chunk before `done`. Raises RuntimeError if it is of another type."""
    lines = [line for line in stream.split(b"\n") if line.startswith(b"data: ")]
    chunk: dict[str, Any] = json.loads(lines[-2].removeprefix(b"data: ")) if len(lines) > 1 else {}
    if chunk.get("type") != expected:
        raise RuntimeError(f"The stream should end with {expected}, but it ends with {stream[-500:]!r}")
    return chunk
