"""The HTTP edge: the app, its start and its end, and the streams of runs. `uvicorn server:app` serves it."""

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.responses import Response

from edge import openapi, sse
from edge.bodies import ASCIIResponse, read
from edge.guard import Guard
from edge.keys import keys
from edge.life import life_routes
from edge.rest import answer_errors, rest_routes, sessions_of
from edge.route import route_routes
from edge.signals import on_exit, on_hangup
from edge.startup import Readiness, Startup, started
from graph import wire
from graph.db.retry import DATABASE_ERRORS, is_transient
from graph.errors import AgentRuntimeError
from graph.execution.engine import open_graph
from graph.llm import open_model
from graph.permissions.gatekeeper import Gatekeeper
from graph.routing.cache import Classifications
from graph.settings import Settings
from sessions.janitor import Janitor
from sessions.request import Request as RunRequest
from sessions.runs.replica import CLOSING_SECONDS
from sessions.runs.run import Run
from sessions.runs.service import Runs
from sessions.service import Sessions
from sessions.store.database import Database, open_database

VERSION = "0.1.0"


class Envelope(wire.Incoming):
    """What must be right for a message to be looked at."""

    session_id: wire.SessionId
    message: dict[str, Any]
    stream: wire.StreamOptions = wire.StreamOptions()
    busy: wire.Busy | None = None


class Health(BaseModel):
    status: str = "healthy"
    service: str = "agent-runtime"
    version: str = VERSION


def create_app(settings: Settings, model: AbstractAsyncContextManager[BaseChatModel] | None = None) -> FastAPI:
    """Without a model of its own it opens the one that the settings name.

    Raises ValueError for a weak key, and for a policy that cannot be used.
    """
    gatekeeper = Gatekeeper(settings.policy_file)
    readiness = Readiness()
    known = Classifications(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logging.getLogger("agent_runtime").setLevel(settings.log_level)
        with ThreadPoolExecutor(1, "sqlite") as thread:
            async with (
                open_database(settings, thread) as database,
                open_graph(settings, model or open_model(settings), gatekeeper, thread, known) as (graph, namer),
            ):
                runs = Runs(database, graph, gatekeeper, settings, namer)
                app.state.database, app.state.runs = database, runs
                app.state.sessions = Sessions(database, graph, runs, settings)
                app.state.janitor = janitor = Janitor(database, runs, app.state.sessions, settings)
                on_hangup(gatekeeper.reload)

                async def start() -> None:
                    await database.prepare(graph.checkpointer.prepare)
                    await runs.replica.start()
                    janitor.start()

                with on_exit(runs.replica.begin_closing):
                    try:
                        async with started(start, readiness):
                            yield
                    finally:
                        await runs.replica.close()

    app = FastAPI(
        title="Agent Runtime", version=VERSION, lifespan=lifespan, default_response_class=ASCIIResponse, redoc_url=None
    )
    app.add_middleware(Startup, readiness=readiness)
    app.add_middleware(Guard, keys=keys(settings))
    answer_errors(app)
    _health_routes(app)
    _message_routes(app, settings)
    rest_routes(app, settings, gatekeeper)
    life_routes(app)
    route_routes(app, settings, known)
    openapi.documented(app)
    return app


def _health_routes(app: FastAPI) -> None:
    @app.get("/health")
    async def health() -> Health:
        return Health()

    @app.get("/ready")
    async def ready(request: Request) -> Health:
        """Whether the database answers as well; 503 if not."""
        database: Database = request.app.state.database
        await database.ping()
        return Health()


def _message_routes(app: FastAPI, settings: Settings) -> None:
    patience = settings.heartbeat_seconds

    @app.post("/agent/message/stream", response_class=Response, openapi_extra=openapi.STREAM)
    async def stream(request: Request) -> Response:
        """Send a message of the user or of the IDE; the answer is a stream of chunks."""
        envelope = await read(request, Envelope)
        try:
            message = wire.parse(envelope.message, wire.MESSAGE)
            key = wire.checked_key(request.headers.get("idempotency-key", ""))
        except AgentRuntimeError as error:
            return sse.response(_failed(envelope.session_id, error), patience)
        options = wire.StreamOptions(
            **{name: value or getattr(message.stream, name) for name, value in envelope.stream}
        )
        runs: Runs = request.app.state.runs
        asked = RunRequest(envelope.session_id, message, options, key, envelope.busy or message.busy)
        return sse.response(await runs.submit(asked), patience)

    @app.get("/sessions/{session_id}/stream", response_class=Response, openapi_extra=openapi.JOIN)
    async def join(request: Request, session_id: str, tokens: bool = False, usage: bool = False) -> Response:
        """The run that goes on, or the last one; with `Last-Event-ID`, what came after that event."""
        await sessions_of(request).shown(session_id)
        run: Run | None = await request.app.state.runs.join(session_id)
        if run is None:
            return sse.nothing()
        after = sse.position(run, request.headers.get("last-event-id", ""))
        shown = {"", *(name for name, asked in (("tokens", tokens), ("usage", usage)) if asked)}
        return sse.response(run, patience, after=after, shown=frozenset(shown))

    @app.post("/sessions/{session_id}/cancel")
    async def cancel(request: Request, session_id: str) -> dict[str, Any]:
        """Stop the run that goes on, and close the open calls; again, it changes nothing."""
        await sessions_of(request).shown(session_id)
        await request.app.state.runs.cancel(session_id)
        return {"session_id": session_id, "status": "cancelled"}


def _failed(session_id: str, error: AgentRuntimeError) -> Run:
    run = Run(session_id)
    run.log.add(run.fail(error))
    run.end()
    return run


def __getattr__(name: str) -> FastAPI:
    """`app`, made when it is asked for: importing this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    with _exit_with_a_sentence():
        app = create_app(Settings())
    _log_to_stderr()
    _settle_memory()
    return app


def main() -> None:
    with _exit_with_a_sentence():
        settings = Settings()
        app = create_app(settings)
        asyncio.run(_try_out(settings))
    _log_to_stderr()
    _settle_memory()
    uvicorn.run(
        app if settings.workers == 1 else "server:app",
        workers=settings.workers,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level.lower(),
        timeout_graceful_shutdown=settings.shutdown_seconds + CLOSING_SECONDS,
    )


@contextmanager
def _exit_with_a_sentence() -> Iterator[None]:
    """And status 1 when the settings, or what they name, cannot be used."""
    try:
        yield
    except ValidationError as error:
        sys.exit("\n".join(_setting(fault) for fault in error.errors(include_url=False, include_input=False)))
    except (OSError, RuntimeError, ValueError, *DATABASE_ERRORS) as error:
        sys.exit(f"The service cannot start: {str(error).splitlines()[0]}")


async def _try_out(settings: Settings) -> None:
    """Opens what the service will open, so that a fault is one sentence and no traceback out of the server.

    A database that is not there yet is none.
    """
    with ThreadPoolExecutor(1, "sqlite") as thread:
        async with (
            open_database(settings, thread) as database,
            open_graph(settings, open_model(settings), Gatekeeper(settings.policy_file), thread) as (graph, _),
        ):
            try:
                await database.prepare(graph.checkpointer.prepare)
            except DATABASE_ERRORS as error:
                if not is_transient(error):
                    raise


def _setting(fault: ErrorDetails) -> str:
    name = "".join(f"AGENT_RUNTIME__{part}: ".upper() for part in fault["loc"])
    return f"{name}{fault['msg'].removeprefix('Value error, ')}"


def _log_to_stderr() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")


def _settle_memory() -> None:
    """What is there when a server starts stays; collecting it again and again costs a tenth of a turn."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


if __name__ == "__main__":
    main()
