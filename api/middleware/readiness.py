"""Start without a database: answer 503 until it is available, then serve."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from api.bodies import ASCIIResponse
from graph.db.retry import DATABASE_UNAVAILABLE, RETRY_AFTER, is_transient

log = logging.getLogger("agent_runtime.database")
RETRY_SECONDS = 1.0
"""Between two attempts to start: well below the five seconds after which clients retry. Chosen, not measured."""


@dataclass
class Readiness:
    """The state of the start, shared by the middleware and the lifespan."""

    is_ready: bool = False


class ReadinessMiddleware:
    """The middleware that answers 503 until the service is ready. `/health` is answered at any time."""

    def __init__(self, app: ASGIApp, readiness: Readiness) -> None:
        self._app = app
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._readiness.is_ready or scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        response = ASCIIResponse({"detail": DATABASE_UNAVAILABLE}, 503, {"Retry-After": RETRY_AFTER})
        await response(scope, receive, send)


@asynccontextmanager
async def run_startup(start: Callable[[], Awaitable[None]], readiness: Readiness) -> AsyncIterator[None]:
    """Call `start`; if the database is not available, enter the block and retry until it is.

    Raises the error of `start` if a retry cannot help.
    """
    try:
        await start()
        readiness.is_ready = True
    except Exception as error:
        if not is_transient(error):
            raise
        log.warning("the database is not available (%s); retrying every %g s", type(error).__name__, RETRY_SECONDS)
    retrying = asyncio.create_task(_retry_startup(start, readiness))
    try:
        yield
    finally:
        retrying.cancel()
        with suppress(asyncio.CancelledError):
            await retrying


async def _retry_startup(start: Callable[[], Awaitable[None]], readiness: Readiness) -> None:
    while not readiness.is_ready:
        await asyncio.sleep(RETRY_SECONDS)
        try:
            await start()
            readiness.is_ready = True
            log.warning("the database is available; the service is ready")
        except Exception as error:
            if not is_transient(error):
                log.exception("the service could not start; retrying in %g s", RETRY_SECONDS)
