"""Serve a scripted model: an OpenAI-compatible server, in a process of its own.

`python -m benchmarks.model PORT [CHOICE WORD]`. CHOICE are the seconds that it takes to choose an agent, WORD those
until its first word.

Without tools it chooses the coder. After a tool's result it answers with a sentence. For "tokens N" it sends N words,
one every TOKEN_SECONDS. For "wait N" it sends a sentence after N seconds. For anything else it reads a file.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

TOKEN_SECONDS = 0.001
"""Seconds; fast for a model, slow enough that each token arrives alone."""
RESPONSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
CHOICE = '{"agent": "coder", "confidence": "high", "reasoning": "It fits."}'
ANSWER = "The file holds forty values, one on each line."
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
calls = count()


async def main(port: int, choice_seconds: float = 0, word_seconds: float = 0) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                request = await _read_request(reader)
                await asyncio.sleep(word_seconds if "tools" in request else choice_seconds)
                await _send_answer(request, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


async def _read_request(reader: asyncio.StreamReader) -> dict[str, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    request: dict[str, Any] = json.loads(await reader.readexactly(length))
    return request


async def _send_answer(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    last = request["messages"][-1]
    if not request["stream"]:
        _send_completion(writer)
        return
    if "tools" in request and last["role"] == "user" and last["content"].startswith("wait "):
        await asyncio.sleep(float(last["content"].removeprefix("wait ")))
        last["role"] = "tool"
    writer.write(RESPONSE_HEAD % b"text/event-stream")
    if "tools" in request and last["role"] == "user" and last["content"].startswith("tokens "):
        for number in range(int(last["content"].split()[1])):
            writer.write(_encode_chunk(_encode_event({"content": f"word{number} "})))
            await writer.drain()
            await asyncio.sleep(TOKEN_SECONDS)
        writer.write(_encode_chunk(b"".join(_build_end("stop"))))
    else:
        writer.write(_encode_chunk(b"".join(_build_answer("tools" in request, last["role"]))))
    writer.write(_encode_chunk(b""))
    await writer.drain()


def _send_completion(writer: asyncio.StreamWriter) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": CHOICE}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": USAGE}).encode()
    writer.write(RESPONSE_HEAD % b"application/json" + _encode_chunk(body) + _encode_chunk(b""))


def _build_answer(has_tools: bool, role: str) -> Iterator[bytes]:
    if has_tools and role == "user":
        function = {"name": "read_file", "arguments": '{"path": "src/values.py"}'}
        yield _encode_event({"tool_calls": [{"index": 0, "id": f"call_{next(calls)}", "function": function}]})
        yield from _build_end("tool_calls")
    else:
        yield _encode_event({"content": ANSWER if has_tools else CHOICE})
        yield from _build_end("stop")


def _build_end(reason: str) -> Iterator[bytes]:
    yield _encode_event({}, reason)
    yield b"data: %b\n\n" % json.dumps({"choices": [], "usage": USAGE}).encode()
    yield b"data: [DONE]\n\n"


def _encode_event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: %b\n\n" % json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode()


def _encode_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *map(float, sys.argv[2:])))
