"""Before any route: the key, then the size and kind of the body. Plain ASGI: nothing is read before the key."""

import asyncio
import json
import re
from collections.abc import Sequence
from hmac import compare_digest

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.settings import is_loopback

OPEN_PATHS = {"/health", "/ready"}
BODY_LIMIT = 2_000_000
"""Bytes that are taken."""
BODY_SECONDS = 60
DRAIN_LIMIT = 100_000_000
"""Bytes that are read before the connection is closed."""


class RequestRefused(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Guard:
    """With no key every caller is let in, but for a browser that shows somebody else's page."""

    def __init__(self, app: ASGIApp, keys: Sequence[bytes]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_nosniff(send)
        try:
            receive = await self._check_request(scope, receive)
        except RequestRefused as refused:
            await _send_refusal(send, refused)
            return
        await self._app(scope, receive, send)

    async def _check_request(self, scope: Scope, receive: Receive) -> Receive:
        """What the route receives from. Raises Refused."""
        if scope["path"] in OPEN_PATHS and scope["method"] in ("GET", "HEAD"):
            return receive
        self._authenticate(scope["headers"])
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return _replay_body(await _read_body(Headers(scope=scope), receive), receive)
        except TimeoutError:
            raise RequestRefused(408, f"the body did not come within {BODY_SECONDS} seconds") from None

    def _authenticate(self, headers: list[tuple[bytes, bytes]]) -> None:
        given = next((value for name, value in headers if name == b"x-internal-auth"), b"")
        fits = [compare_digest(given, key) for key in self._keys]  # all of them: none is told by the time it takes
        if not self._keys:
            _require_same_machine(headers)
        elif not any(fits):
            raise RequestRefused(401, "unauthorized")


def _require_same_machine(headers: list[tuple[bytes, bytes]]) -> None:
    """What browsers send for pages of other sites is refused: without a key they could use the service."""
    if not all(_is_local_host(value) for name, value in headers if name == b"host"):
        raise RequestRefused(403, "without a key the service answers to a loopback address only")
    if (b"sec-fetch-site", b"cross-site") in headers:
        raise RequestRefused(403, "without a key the service does not answer pages of other sites")


def _is_local_host(host: bytes) -> bool:
    """Whether it can be no name that somebody else pointed at us (DNS rebinding): names of the net have a dot."""
    name = re.sub(r":[0-9]*$", "", host.decode("latin-1"))
    return is_loopback(name.strip("[]")) or not re.search(r"[.\[\]:]", name)


def _with_nosniff(send: Send) -> Send:
    """No browser may take an answer for something else than it is."""

    async def send_with_nosniff(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
        await send(message)

    return send_with_nosniff


async def _read_body(headers: Headers, receive: Receive) -> bytes:
    """What is too much is read and dropped, up to a point: an answer reaches only clients that could send it all."""
    body, size, more = bytearray(), 0, True
    while more and size <= DRAIN_LIMIT:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestRefused(400, "the body broke off")
        size += len(message.get("body", b""))
        if size <= BODY_LIMIT:
            body += message.get("body", b"")
        more = message.get("more_body", False)
    if size > BODY_LIMIT:
        raise RequestRefused(413, f"the body is larger than {BODY_LIMIT} bytes")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != "application/json":
        raise RequestRefused(415, "send the body as application/json")
    return bytes(body)


def _replay_body(body: bytes, receive: Receive) -> Receive:
    told = False

    async def receive_body() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_body


async def _send_refusal(send: Send, refused: RequestRefused) -> None:
    body = json.dumps({"detail": str(refused)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
