"""An OpenAI-compatible server on a real socket that plays a script, one step for each request.

    async with ScriptedLLM(says("On it.") & calls("read_file", path="a.py"), says("Done.")) as llm:
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

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
EVENTS, JSON, HTML = "text/event-stream", "application/json", "text/html"


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: dict[str, Any]

    @property
    def streaming(self) -> bool:
        return self.body.get("stream") is True


@dataclass
class Exchange:
    """What a step has in its hands: the request, and the connection to answer on."""

    request: Request
    writer: asyncio.StreamWriter

    async def head(self, status: int, content_type: str, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def start(self, data: bytes = b"") -> None:
        """The head of a stream, and its first bytes."""
        await self.head(200, EVENTS, Transfer_Encoding="chunked")
        if data:
            await self.piece(data)

    async def piece(self, data: bytes) -> None:
        """One chunk of a chunked body; the empty one ends it."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """RST, not FIN."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Step = Callable[[Exchange], Awaitable[None]]
"""How one request is answered. Anything awaitable of an Exchange will do."""


@dataclass(frozen=True)
class Reply:
    """A regular answer, streamed or whole as the request asks. `a & b` says and calls what both do, in one message."""

    text: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    after: asyncio.Event | None = None
    """Answer only when it is set."""
    usage: dict[str, int] = field(default_factory=lambda: dict(USAGE))

    def __and__(self, other: "Reply") -> "Reply":
        return replace(self, text=self.text + other.text, tool_calls=self.tool_calls + other.tool_calls)

    async def __call__(self, exchange: Exchange) -> None:
        if self.after:
            await self.after.wait()
        if not exchange.request.streaming:
            whole = json.dumps(self.completion()).encode()
            await exchange.head(200, JSON, Content_Length=str(len(whole)))
            return await exchange.send(whole)
        await exchange.start()
        for event in self.events():
            await exchange.piece(sse(event))
        await exchange.piece(b"data: [DONE]\n\n")
        return await exchange.piece(b"")

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.tool_calls else "stop"

    def completion(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.tool_calls:
            message["tool_calls"] = list(self.tool_calls)
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return {"object": "chat.completion", "choices": [choice], "usage": self.usage}

    def events(self) -> Iterator[dict[str, Any]]:
        """Word by word, and each call in three pieces: who, and its arguments in halves."""
        yield delta(role="assistant", content="")
        for word in re.findall(r"\s*\S+|\s+", self.text):
            yield delta(content=word)
        for index, call in enumerate(self.tool_calls):
            yield from _call_events(index, call)
        yield delta(finish_reason=self.finish_reason)
        yield {"object": "chat.completion.chunk", "choices": [], "usage": self.usage}


def _call_events(index: int, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    half = len(arguments) // 2
    first = {"index": index, "id": call["id"], "type": "function", "function": {"name": name, "arguments": ""}}
    yield delta(tool_calls=[first])
    for piece in (arguments[:half], arguments[half:]):
        yield delta(tool_calls=[{"index": index, "function": {"arguments": piece}}])


def says(text: str, after: asyncio.Event | None = None) -> Reply:
    return Reply(text, after=after)


def calls(tool: str, /, id: str | None = "call_1", **arguments: Any) -> Reply:  # noqa: A002
    return calls_raw(tool, json.dumps(arguments), id)


def calls_raw(tool: str, arguments: Any, id: str | None = "call_1") -> Reply:  # noqa: A002
    """Arguments as they are, JSON or not, text or not."""
    return Reply(tool_calls=({"id": id, "type": "function", "function": {"name": tool, "arguments": arguments}},))


def chooses(agent: str, confidence: str = "high", reasoning: str = "It fits.") -> Reply:
    """The answer to a classification."""
    return says(json.dumps({"agent": agent, "confidence": confidence, "reasoning": reasoning}))


def status(code: int, body: bytes = b'{"error": {"message": "secret detail"}}', **headers: str) -> Step:
    """Headers as in `Retry_After="1"`."""

    async def step(exchange: Exchange) -> None:
        await exchange.head(code, JSON, Content_Length=str(len(body)), **headers)
        await exchange.send(body)

    return step


def raw(body: bytes, *, content_type: str = EVENTS, slices: int | None = None) -> Step:
    """Status 200 and this body, in pieces of `slices` bytes."""

    async def step(exchange: Exchange) -> None:
        await exchange.head(200, content_type, Transfer_Encoding="chunked")
        size = slices or len(body) or 1
        for start in range(0, len(body), size):
            await exchange.piece(body[start : start + size])
        await exchange.piece(b"")

    return step


def resets(sent: bytes | None = None) -> Step:
    """Resets the connection: at once, or after the head and these bytes of a streamed body were sent."""

    async def step(exchange: Exchange) -> None:
        if sent is not None:
            await exchange.start(sent)
        exchange.reset()

    return step


def breaks(sent: bytes = b"") -> Step:
    """Closes the connection in an orderly way, in the middle of a streamed body."""

    async def step(exchange: Exchange) -> None:
        await exchange.start(sent)
        exchange.writer.close()

    return step


def hangs(sent: bytes | None = None, release: asyncio.Event | None = None) -> Step:
    """Says no more: at once, or after the head and these bytes. When released it closes the connection."""

    async def step(exchange: Exchange) -> None:
        if sent is not None:
            await exchange.start(sent)
        await (release or asyncio.Event()).wait()
        exchange.writer.close()

    return step


def delta(finish_reason: str | None = None, **message: Any) -> dict[str, Any]:
    """One event of a stream."""
    choice = {"index": 0, "delta": message, "finish_reason": finish_reason}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def sse(*events: Any, done: bool = False) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"] * done
    return "".join(lines).encode()


class ScriptedLLM:
    """`url` is for LLM_PROXY_URL. `steps` may be added to at any time; `otherwise` answers when they have run out."""

    def __init__(
        self, *steps: Step, otherwise: Callable[[Request], Step] = lambda _: status(418), port: int = 0
    ) -> None:
        self.steps = list(steps)
        self.otherwise = otherwise
        self.requests: list[Request] = []
        self.connections = 0
        self.url = ""
        self._port = port
        self._arrival = asyncio.Condition()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port, limit=2**24)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    async def received(self, number: int) -> Request:
        """Waits until that many requests have come; the last of them."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: len(self.requests) >= number)
        return self.requests[number - 1]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing() and (request := await _read(reader)):
                step = self.steps.pop(0) if self.steps else self.otherwise(request)
                await self._arrived(request)
                await step(Exchange(request, writer))
        except OSError:
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _arrived(self, request: Request) -> None:
        async with self._arrival:
            self.requests.append(request)
            self._arrival.notify_all()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except asyncio.IncompleteReadError:
        return None
    return Request(first.split(" ")[1], headers, json.loads(body or b"{}"))
