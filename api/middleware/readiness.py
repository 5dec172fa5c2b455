"""A service whose database is not there yet: it starts, says so, and serves as soon as it is."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from graph.db.retry import DATABASE_UNAVAILABLE, RETRY_AFTER, is_transient

log = logging.getLogger("agent_runtime.database")
RETRY_SECONDS = 1.0


@dataclass
class Readiness:
    is_ready: bool = False


class ReadinessMiddleware:
    """Until the service is ready nothing is answered but whether it lives. Plain ASGI, as the guard before it."""

    def __init__(self, app: ASGIApp, readiness: Readiness) -> None:
        self._app = app
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._readiness.is_ready or scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        body = json.dumps({"detail": DATABASE_UNAVAILABLE}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers.append((b"retry-after", RETRY_AFTER.encode()))
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def run_startup(start: Callable[[], Awaitable[None]], readiness: Readiness) -> AsyncIterator[None]:
    """Waits for `start`; if the database is not there it goes on, and `start` is tried until it is.

    Raises what will not pass.
    """
    try:
        await start()
        readiness.is_ready = True
    except Exception as error:
        if not is_transient(error):
            raise
        log.warning("the database is not there (%s); waiting for it", type(error).__name__)
    waiting = asyncio.create_task(_retry_startup(start, readiness))
    try:
        yield
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting


async def _retry_startup(start: Callable[[], Awaitable[None]], readiness: Readiness) -> None:
    while not readiness.is_ready:
        await asyncio.sleep(RETRY_SECONDS)
        try:
            await start()
            readiness.is_ready = True
            log.warning("the database is there; the service is ready")
        except Exception as error:
            if not is_transient(error):
                log.exception("the service is not ready")
