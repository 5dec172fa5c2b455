"""Before any route: the key, then the size and kind of the body. Plain ASGI: nothing is read before the key."""

import asyncio
import json
from hmac import compare_digest

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = {"/health", "/ready"}
BODY_LIMIT = 2_000_000
"""Bytes that are taken."""
BODY_SECONDS = 60
DRAIN_LIMIT = 100_000_000
"""Bytes that are read before the connection is closed."""


class Refused(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Guard:
    """With an empty key every caller is let in."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["path"] in OPEN_PATHS and scope["method"] in ("GET", "HEAD")):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._authenticate(headers)
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(headers, receive)
        except TimeoutError:
            await _answer(send, Refused(408, f"the body did not come within {BODY_SECONDS} seconds"))
            return
        except Refused as refused:
            await _answer(send, refused)
            return
        await self._app(scope, _replay(body, receive), send)

    def _authenticate(self, headers: Headers) -> None:
        given = headers.get("x-internal-auth", "").encode()
        if self._key and not compare_digest(given, self._key):
            raise Refused(401, "unauthorized")


async def _body(headers: Headers, receive: Receive) -> bytes:
    """What is too much is read and dropped, up to a point: an answer reaches only clients that could send it all."""
    body, size, more = bytearray(), 0, True
    while more and size <= DRAIN_LIMIT:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the body broke off")
        size += len(message.get("body", b""))
        if size <= BODY_LIMIT:
            body += message.get("body", b"")
        more = message.get("more_body", False)
    if size > BODY_LIMIT:
        raise Refused(413, f"the body is larger than {BODY_LIMIT} bytes")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != "application/json":
        raise Refused(415, "send the body as application/json")
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def replayed() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"detail": str(refused)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
