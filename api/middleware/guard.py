"""Check the key of a request, then the size and type of its body. Nothing of the body is read before the key."""

import asyncio
import re
from collections.abc import Sequence
from hmac import compare_digest

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.bodies import ASCIIResponse
from graph.settings import is_loopback

OPEN_PATHS = {"/health", "/ready"}
"""Health checks have no key."""
BODY_LIMIT = 2_000_000
"""Bytes of an accepted body: twice the largest result that is kept, so that a longer result can still be truncated."""
BODY_SECONDS = 60
"""A slower sender is refused: one that stalls would keep its connection for ever. Chosen, not measured."""
OWN_SITES = {b"none", b"same-origin"}
"""The values of Sec-Fetch-Site for a request that a user typed, and for one of the service's own page."""
FOREIGN_PAGE = "without a key the service does not answer pages of other sites"
DRAIN_LIMIT = 100_000_000
"""Bytes of a refused body that are read and dropped.

Most clients read no answer before they have sent everything. Beyond the limit the connection is closed; the limit is
chosen, not measured.
"""


class RequestRefused(Exception):
    """The request does not reach a route. The status and the text are its answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Guard:
    """The middleware that refuses requests without a key, and requests whose body cannot be accepted."""

    def __init__(self, app: ASGIApp, keys: Sequence[bytes]) -> None:
        """Accept any of the `keys`.

        Without keys, accept every caller on this machine, but no browser that shows a page of another site.
        """
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
            await _make_response(refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _check_request(self, scope: Scope, receive: Receive) -> Receive:
        """Check the request; return the channel from which the route receives the body. Raises RequestRefused."""
        if scope["path"] in OPEN_PATHS and scope["method"] in ("GET", "HEAD"):
            return receive
        self._authenticate(scope["headers"])
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return _replay_body(await _read_body(Headers(scope=scope), receive), receive)
        except TimeoutError:
            raise RequestRefused(408, f"the body did not come within {BODY_SECONDS} seconds") from None

    def _authenticate(self, headers: list[tuple[bytes, bytes]]) -> None:
        if not self._keys:
            _require_same_machine(headers)
            return
        # RFC 9110, 5.5: blanks around a value do not belong to it.
        received = [value.strip(b" \t") for name, value in headers if name == b"x-internal-auth"]
        # Each is compared with every key: the time of the answer must not show which one is close.
        matches = [[compare_digest(value, key) for key in self._keys] for value in received]
        if not matches or not all(map(any, matches)):
            raise RequestRefused(401, "unauthorized")


def _require_same_machine(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse requests of browsers for pages of other origins: without a key such a page could use the service.

    Not every browser sends Sec-Fetch-Site, so the host and port of an Origin must be those of the request.

    Raises RequestRefused.
    """
    if not all(_is_local_host(value) for name, value in headers if name == b"host"):
        raise RequestRefused(403, "without a key the service answers to a loopback address only")
    if any(name == b"sec-fetch-site" and value.strip(b" \t") not in OWN_SITES for name, value in headers):
        raise RequestRefused(403, FOREIGN_PAGE)
    hosts = {value.strip(b" \t").lower() for name, value in headers if name == b"host"}
    origins = [value.strip(b" \t").lower() for name, value in headers if name == b"origin"]
    if any(re.sub(rb"^https?://", b"", origin) not in hosts for origin in origins):
        raise RequestRefused(403, FOREIGN_PAGE)


def _is_local_host(host: bytes) -> bool:
    """Return whether the host is a loopback address or `localhost`.

    Other names can be pointed at this machine by somebody else (DNS rebinding), those without a dot by a search domain.
    """
    name = re.sub(r":[0-9]*$", "", host.decode("latin-1").strip(" \t"))
    return not name or is_loopback(name.strip("[]").lower())


def _with_nosniff(send: Send) -> Send:
    """Add the header that keeps browsers from guessing another content type."""

    async def send_with_nosniff(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
        await send(message)

    return send_with_nosniff


async def _read_body(headers: Headers, receive: Receive) -> bytes:
    """Read the body. A body that is too large is read and dropped, up to `DRAIN_LIMIT`. Raises RequestRefused."""
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
    kinds = {value.partition(";")[0].strip().lower() for value in headers.getlist("content-type")}
    encodings = {value.strip().lower() for value in headers.getlist("content-encoding")}
    if body and (kinds != {"application/json"} or encodings - {"", "identity"}):
        raise RequestRefused(415, "send the body as application/json")
    return bytes(body)


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a channel that delivers the body that was read, then the rest of `receive`."""
    is_delivered = False

    async def receive_body() -> Message:
        nonlocal is_delivered
        if is_delivered:
            return await receive()
        is_delivered = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_body


def _make_response(refused: RequestRefused) -> ASCIIResponse:
    headers = {"Connection": "close"} if refused.status == 413 else None  # the rest of the body may still be sent
    return ASCIIResponse({"detail": str(refused)}, refused.status, headers)
