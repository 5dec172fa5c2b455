"""A scripted service: a real HTTP server that speaks the contract."""

import asyncio
import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple, Self

DISCONNECT = {"type": "cut"}
"""The connection breaks at this point of a script."""
STALL = {"type": "hold"}
"""Nothing more comes after this point of a script."""


class HTTPRequest(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def message(self) -> dict[str, Any]:
        """Return the message without the fields that every message has."""
        return {k: v for k, v in self.body["message"].items() if k not in ("id", "stream")}


class ScriptedService:
    """A server with the chunks of each stream, in order, and the JSON of other paths; a path without JSON is 404."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.scripts: list[list[dict[str, Any]]] = []
        self.rest: dict[str, Any] = {"/health": {"status": "healthy"}}
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.requests: list[HTTPRequest] = []
        self.closes_after_cut = False
        self._events = 0
        self._released = asyncio.Event()

    def add_scripts(self, *scripts: Iterable[dict[str, Any]]) -> None:
        self.scripts += [list(script) for script in scripts]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [request.message for request in self.requests if request.method == "POST" and request.body]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve_connection, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._released.set()
        self._server.close()

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await _read_request(reader)
            if request.path != "/health":
                self.requests.append(request)
            await self._send_response(request, writer)
            await writer.drain()
        writer.close()

    async def _send_response(self, request: HTTPRequest, writer: asyncio.StreamWriter) -> None:
        path = request.path.partition("?")[0]
        if self.refusals and path != "/health":
            status, headers = self.refusals.pop(0)
            return _write_response(writer, status, b"{}", headers)
        if not path.endswith("/stream"):
            status = 200 if path in self.rest else 404
            return _write_response(writer, status, json.dumps(self.rest.get(path, {"error": "not found"})).encode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        for chunk in self.scripts.pop(0):
            if chunk is STALL:
                await self._released.wait()
                return None
            if chunk is DISCONNECT:
                if self.closes_after_cut:
                    self._server.close()
                return None
            self._events += 1
            name = "error" if chunk["type"] == "error" else "message"
            _write_piece(writer, f": quiet\n\nevent: {name}\nid: run-{self._events}\ndata: {json.dumps(chunk)}\n\n")
        _write_piece(writer, 'event: done\ndata: {"status": "completed"}\n\n')
        writer.write(b"0\r\n\r\n")
        return None


async def _read_request(reader: asyncio.StreamReader) -> HTTPRequest:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split()
    return HTTPRequest(method, path, headers, json.loads(body) if body else None)


def _write_response(
    writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None
) -> None:
    fields = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body)


def _write_piece(writer: asyncio.StreamWriter, text: str) -> None:
    writer.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())


def text_chunk(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "assistant_message", "content": text, "is_final": True, **more}


def token_chunk(text: str) -> dict[str, Any]:
    return {"type": "assistant_message", "token": text, "is_final": False}


def tool_call_chunk(
    tool: str, *, requires_approval: bool = False, call_id: str = "call_1", **arguments: Any
) -> dict[str, Any]:
    call = {"call_id": call_id, "tool_name": tool, "arguments": arguments, "requires_approval": requires_approval}
    return {"type": "tool_call", **call, "is_final": True}


def error_chunk(code: str, text: str = "It failed.", **about: str) -> dict[str, Any]:
    return {"type": "error", "error": text, "metadata": {"code": code, **about}, "is_final": True}


def agent_switch_chunk(to: str) -> dict[str, Any]:
    about = {"from_agent": "orchestrator", "to_agent": to, "reason": "it is code", "confidence": "high"}
    metadata = {**about, "classification_method": "llm"}
    return {"type": "agent_switched", "content": f"Switched to {to} agent", "metadata": metadata, "is_final": False}


async def _serve_forever() -> None:
    async with ScriptedService(int(sys.argv[1])):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_forever())
