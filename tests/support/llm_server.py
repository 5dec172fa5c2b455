"""An OpenAI-compatible server on a real socket that plays a script, one step for each request.

    reading = respond_text("On it.") & respond_tool_call("read_file", path="a.py")
    async with ScriptedLLM(reading, respond_text("Done.")) as llm:
        settings = Settings(_env_file=None, llm_model="scripted", llm_proxy_url=llm.url)
        ...
        assert llm.requests[0].body["stream"] is True

A request after the last step is refused with status 418.
"""

import asyncio
import json
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Self

from tests.support.clock import advance_loop_clock

DEFAULT_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
HTTP_STATUSES = frozenset(HTTPStatus)
EVENT_STREAM_TYPE, JSON_TYPE, HTML_TYPE = "text/event-stream", "application/json", "text/html"


@dataclass
class LLMRequest:
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: dict[str, Any]

    @property
    def is_streaming(self) -> bool:
        return self.body.get("stream") is True


@dataclass
class Exchange:
    """A request, and the connection to answer on."""

    request: LLMRequest
    writer: asyncio.StreamWriter

    async def send_head(self, status: int, content_type: str, **headers: str) -> None:
        phrase = HTTPStatus(status).phrase if status in HTTP_STATUSES else "Unlisted"
        lines = [f"HTTP/1.1 {status} {phrase}", f"Content-Type: {content_type}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def start_stream(self, data: bytes = b"") -> None:
        """Send the head of a stream and its first bytes."""
        await self.send_head(200, EVENT_STREAM_TYPE, Transfer_Encoding="chunked")
        if data:
            await self.send_piece(data)

    async def send_piece(self, data: bytes) -> None:
        """Send one chunk of a chunked body; the empty one ends the body."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset_connection(self) -> None:
        """Close the connection with RST, not FIN."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Responder = Callable[[Exchange], Awaitable[None]]
"""Answers one request."""


@dataclass(frozen=True)
class ScriptedReply:
    """A regular answer, streamed or whole as requested. `a & b` has the texts and calls of both in one message."""

    text: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    after: asyncio.Event | None = None
    """The answer waits for this event."""
    usage: dict[str, int] = field(default_factory=lambda: dict(DEFAULT_USAGE))
    ends: str = ""
    """The finish reason; empty: that of a complete answer."""

    def __and__(self, other: "ScriptedReply") -> "ScriptedReply":
        return replace(self, text=self.text + other.text, tool_calls=self.tool_calls + other.tool_calls)

    async def __call__(self, exchange: Exchange) -> None:
        if self.after:
            await self.after.wait()
        if not exchange.request.is_streaming:
            whole = json.dumps(self.to_completion()).encode()
            await exchange.send_head(200, JSON_TYPE, Content_Length=str(len(whole)))
            return await exchange.send(whole)
        await exchange.start_stream()
        for event in self.iter_events():
            await exchange.send_piece(encode_sse(event))
        await exchange.send_piece(b"data: [DONE]\n\n")
        return await exchange.send_piece(b"")

    @property
    def finish_reason(self) -> str:
        return self.ends or ("tool_calls" if self.tool_calls else "stop")

    def to_completion(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.tool_calls:
            message["tool_calls"] = list(self.tool_calls)
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return {"object": "chat.completion", "choices": [choice], "usage": self.usage}

    def iter_events(self) -> Iterator[dict[str, Any]]:
        """Yield the text word by word, and each call in three pieces: its name, and its arguments in halves."""
        yield build_delta(role="assistant", content="")
        for word in re.findall(r"\s*\S+|\s+", self.text):
            yield build_delta(content=word)
        for index, call in enumerate(self.tool_calls):
            yield from _iter_call_events(index, call)
        yield build_delta(finish_reason=self.finish_reason)
        yield {"object": "chat.completion.chunk", "choices": [], "usage": self.usage}


def _iter_call_events(index: int, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    half = len(arguments) // 2
    first = {"index": index, "id": call["id"], "type": "function", "function": {"name": name, "arguments": ""}}
    yield build_delta(tool_calls=[first])
    for piece in (arguments[:half], arguments[half:]):
        yield build_delta(tool_calls=[{"index": index, "function": {"arguments": piece}}])


def respond_text(text: str, after: asyncio.Event | None = None) -> ScriptedReply:
    return ScriptedReply(text, after=after)


def cut_off(reply: ScriptedReply, reason: str = "length") -> ScriptedReply:
    """Return the reply with another finish reason than that of a complete answer."""
    return replace(reply, ends=reason)


def respond_tool_call(tool: str, /, id: str | None = "call_1", **arguments: Any) -> ScriptedReply:  # noqa: A002
    return respond_raw_tool_call(tool, json.dumps(arguments), id)


def respond_raw_tool_call(tool: str, arguments: Any, id: str | None = "call_1") -> ScriptedReply:  # noqa: A002
    """Answer with a call whose arguments are sent as they are, JSON or not, text or not."""
    return ScriptedReply(
        tool_calls=({"id": id, "type": "function", "function": {"name": tool, "arguments": arguments}},)
    )


def respond_choice(agent: str, confidence: str = "high", reasoning: str = "It fits.") -> ScriptedReply:
    """Answer a classification."""
    return respond_text(json.dumps({"agent": agent, "confidence": confidence, "reasoning": reasoning}))


def respond_status(code: int, body: bytes = b'{"error": {"message": "secret detail"}}', **headers: str) -> Responder:
    """Answer with a status; write headers as in `Retry_After="1"`."""

    async def respond(exchange: Exchange) -> None:
        await exchange.send_head(code, JSON_TYPE, Content_Length=str(len(body)), **headers)
        await exchange.send(body)

    return respond


def respond_raw(body: bytes, *, content_type: str = EVENT_STREAM_TYPE, slices: int | None = None) -> Responder:
    """Answer with status 200 and this body, in pieces of `slices` bytes."""

    async def respond(exchange: Exchange) -> None:
        await exchange.send_head(200, content_type, Transfer_Encoding="chunked")
        size = slices or len(body) or 1
        for start in range(0, len(body), size):
            await exchange.send_piece(body[start : start + size])
        await exchange.send_piece(b"")

    return respond


def reset_after(sent: bytes | None = None) -> Responder:
    """Reset the connection: at once, or after the head and these bytes of a streamed body."""

    async def respond(exchange: Exchange) -> None:
        if sent is not None:
            await exchange.start_stream(sent)
        exchange.reset_connection()

    return respond


def close_after(sent: bytes = b"") -> Responder:
    """Close the connection in an orderly way, in the middle of a streamed body."""

    async def respond(exchange: Exchange) -> None:
        await exchange.start_stream(sent)
        exchange.writer.close()

    return respond


def hang_after(sent: bytes | None = None, *, seconds: float = 0) -> Responder:
    """Send nothing more: at once, or after the head and these bytes. The clock skips `seconds` of the silence."""

    async def respond(exchange: Exchange) -> None:
        if sent is not None:
            await exchange.start_stream(sent)
        if seconds:
            await advance_loop_clock(seconds)
        await asyncio.Event().wait()

    return respond


def build_delta(finish_reason: str | None = None, **message: Any) -> dict[str, Any]:
    """Return one event of a stream."""
    choice = {"index": 0, "delta": message, "finish_reason": finish_reason}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def encode_sse(*events: Any, done: bool = False) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"] * done
    return "".join(lines).encode()


class ScriptedLLM:
    """A scripted server, whose `url` is for LLM_PROXY_URL.

    Steps can be added at any time; `otherwise` answers when none is left."""

    def __init__(
        self,
        *steps: Responder,
        otherwise: Callable[[LLMRequest], Responder] = lambda _: respond_status(418),
        port: int = 0,
    ) -> None:
        self.steps = list(steps)
        self.otherwise = otherwise
        self.requests: list[LLMRequest] = []
        self.connections = 0
        self.url = ""
        self._port = port
        self._arrival = asyncio.Condition()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._handle_connection, "127.0.0.1", self._port, limit=2**24)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    async def wait_for_requests(self, number: int) -> LLMRequest:
        """Wait until so many requests have come; return the last of them."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: len(self.requests) >= number)
        return self.requests[number - 1]

    def _handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve_connection(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing() and (request := await _read_request(reader)):
                step = self.steps.pop(0) if self.steps else self.otherwise(request)
                await self._record_request(request)
                await step(Exchange(request, writer))
        except OSError:
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _record_request(self, request: LLMRequest) -> None:
        async with self._arrival:
            self.requests.append(request)
            self._arrival.notify_all()


async def _read_request(reader: asyncio.StreamReader) -> LLMRequest | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except asyncio.IncompleteReadError:
        return None
    return LLMRequest(first.split(" ")[1], headers, json.loads(body or b"{}"))
