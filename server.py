"""The HTTP edge: routes over sessions and runs. `uvicorn server:app` serves it, the environment decides the rest."""

import asyncio
import gc
import logging
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Annotated, Any

import psycopg
import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from edge import openapi, sse
from edge.bodies import ASCIIResponse, read, told
from edge.guard import Guard
from edge.keys import keys
from graph import wire
from graph.checkpointer import open_checkpointer
from graph.errors import AgentRuntimeError, Interrupted, SessionBusy
from graph.gate import Gatekeeper, explained
from graph.llm import open_model
from graph.settings import Settings
from graph.topology import topology
from prompts import CLASSIFIER, AgentName, team
from sessions.acceptance import Request as RunRequest
from sessions.database import Database, open_database
from sessions.run import Run
from sessions.runs import Runs
from sessions.sessions import GrantNotFound, SessionNotFound, Sessions

VERSION = "0.1.0"


class Envelope(wire.Incoming):
    """What must be right for a message to be looked at."""

    session_id: wire.SessionId
    message: dict[str, Any]
    stream: wire.StreamOptions = wire.StreamOptions()


class Names(wire.Incoming):
    """What a user may call a session."""

    title: str | None = Field(None, max_length=500)
    description: str | None = Field(None, max_length=5000)


class Question(wire.Incoming):
    """A call that the gate is asked about."""

    agent: AgentName
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Health(BaseModel):
    status: str = "healthy"
    service: str = "agent-runtime"
    version: str = VERSION


def create_app(settings: Settings, model: AbstractAsyncContextManager[BaseChatModel] | None = None) -> FastAPI:
    """Without a model of its own it opens the one that the settings name.

    Raises ValueError for a weak key, and for a policy that cannot be used.
    """
    gatekeeper = Gatekeeper(settings.policy_file)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logging.getLogger("agent_runtime").setLevel(settings.log_level)
        with ThreadPoolExecutor(1, "sqlite") as thread:
            async with (
                model or open_model(settings) as llm,
                open_database(settings.db_url, thread) as database,
                open_checkpointer(settings.db_url, thread) as checkpointer,
            ):
                graph = topology(llm, settings, gatekeeper).compile(checkpointer=checkpointer)
                runs = Runs(database, graph, gatekeeper, settings)
                app.state.database, app.state.runs = database, runs
                app.state.sessions = Sessions(database, graph, runs.turns, settings)
                await runs.recover()
                _on_hangup(gatekeeper.reload)
                try:
                    yield
                finally:
                    await runs.close()

    app = FastAPI(
        title="Agent Runtime", version=VERSION, lifespan=lifespan, default_response_class=ASCIIResponse, redoc_url=None
    )
    app.add_middleware(Guard, keys=keys(settings))
    _answer_errors(app)
    _health_routes(app)
    _message_routes(app, settings)
    _agent_routes(app, settings)
    _policy_routes(app, gatekeeper)
    _session_routes(app)
    _grant_routes(app)
    openapi.documented(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(SessionNotFound)
    async def not_found(request: Request, error: SessionNotFound) -> Response:
        """An id that can be none is not repeated."""
        known = re.fullmatch(wire.ID, request.path_params["session_id"])
        return ASCIIResponse({"error": str(error) if known else "Session not found"}, 404)

    @app.exception_handler(GrantNotFound)
    async def no_grant(_: Request, error: GrantNotFound) -> Response:
        return ASCIIResponse({"error": str(error)}, 404)

    @app.exception_handler(SessionBusy)
    async def busy(_: Request, error: SessionBusy) -> Response:
        return ASCIIResponse({"error": str(error), "code": error.code}, 409)

    @app.exception_handler(Interrupted)
    async def stopping(_: Request, error: Interrupted) -> Response:
        return ASCIIResponse({"detail": str(error)}, 503, {"Retry-After": "5"})

    @app.exception_handler(SQLAlchemyError)
    async def no_database(_: Request, error: SQLAlchemyError) -> Response:
        logging.getLogger("agent_runtime").error("the database failed: %s", type(error).__name__)
        return ASCIIResponse({"detail": "the database is not available"}, 503, {"Retry-After": "5"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return ASCIIResponse({"detail": told(error.errors())}, 422)


def _health_routes(app: FastAPI) -> None:
    @app.get("/health")
    async def health() -> Health:
        return Health()

    @app.get("/ready")
    async def ready(request: Request) -> Health:
        """Whether the database answers as well; 503 if not."""
        database: Database = request.app.state.database
        await database.transact(lambda connection: connection.execute(text("select 1")))
        return Health()


def _message_routes(app: FastAPI, settings: Settings) -> None:
    patience = settings.heartbeat_seconds

    @app.post("/agent/message/stream", openapi_extra=openapi.STREAM)
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
        return sse.response(await runs.submit(RunRequest(envelope.session_id, message, options, key)), patience)

    @app.get("/sessions/{session_id}/stream")
    async def join(request: Request, session_id: str, tokens: bool = False, usage: bool = False) -> Response:
        """The run that goes on, or the last one; with `Last-Event-ID`, what came after that event."""
        await _sessions(request).shown(session_id)
        run: Run | None = await request.app.state.runs.join(session_id)
        if run is None:
            return sse.nothing()
        after = sse.position(run, request.headers.get("last-event-id", ""))
        shown = {"", *(name for name, asked in (("tokens", tokens), ("usage", usage)) if asked)}
        return sse.response(run, patience, after=after, shown=frozenset(shown))

    @app.post("/sessions/{session_id}/cancel")
    async def cancel(request: Request, session_id: str) -> dict[str, Any]:
        """Stop the run that goes on, and close the open calls; again, it changes nothing."""
        await _sessions(request).shown(session_id)
        await request.app.state.runs.cancel(session_id)
        return {"session_id": session_id, "status": "cancelled"}


def _failed(session_id: str, error: AgentRuntimeError) -> Run:
    run = Run(session_id)
    run.log.add(run.fail(error))
    run.end()
    return run


def _agent_routes(app: FastAPI, settings: Settings) -> None:
    @app.get("/agents")
    async def agents() -> list[dict[str, Any]]:
        """The agents of this mode."""
        return [
            {
                "type": agent.name,
                "name": agent.title,
                "description": agent.description,
                "allowed_tools": list(agent.tools),
                "has_file_restrictions": agent.may_write != ("*",),
            }
            for agent in [CLASSIFIER, *team(settings.multi_agent_mode).values()]
        ]

    @app.get("/agents/{session_id}/current")
    async def current(request: Request, session_id: str) -> dict[str, Any]:
        """Who holds the conversation, and who held it before."""
        return await _sessions(request).current_agent(session_id)


def _policy_routes(app: FastAPI, gatekeeper: Gatekeeper) -> None:
    @app.get("/policy")
    async def policy() -> dict[str, Any]:
        """The rules, and what they say of each agent and tool."""
        return {**gatekeeper.policy.model_dump(mode="json"), "matrix": gatekeeper.matrix()}

    @app.post("/policy/explain")
    async def explain(request: Request) -> dict[str, Any]:
        """What the gate would say of a call; nothing is run or stored."""
        asked = await read(request, Question)
        return explained(gatekeeper.verdict(asked.agent, asked.tool, asked.arguments))


def _grant_routes(app: FastAPI) -> None:
    @app.get("/sessions/{session_id}/grants")
    async def granted(request: Request, session_id: str) -> dict[str, Any]:
        """What the user allowed in advance, and what the open approvals could be remembered as."""
        return await _sessions(request).grants(session_id)

    @app.delete("/sessions/{session_id}/grants")
    async def revoke_all(request: Request, session_id: str) -> dict[str, Any]:
        return await _sessions(request).revoke(session_id)

    @app.delete("/sessions/{session_id}/grants/{grant_id}")
    async def revoke(request: Request, session_id: str, grant_id: str) -> dict[str, Any]:
        return await _sessions(request).revoke(session_id, grant_id)


def _session_routes(app: FastAPI) -> None:
    @app.get("/sessions")
    async def listed(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 500,
        offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
        q: Annotated[str, Query(max_length=200)] = "",
    ) -> dict[str, Any]:
        """The newest activity first; `q` searches the titles."""
        return await _sessions(request).listed(q, limit, offset)

    @app.post("/sessions")
    async def create(request: Request) -> dict[str, Any]:
        return await _sessions(request).create()

    @app.get("/sessions/{session_id}")
    async def shown(request: Request, session_id: str) -> dict[str, Any]:
        return await _sessions(request).shown(session_id)

    @app.patch("/sessions/{session_id}")
    async def rename(request: Request, session_id: str) -> dict[str, Any]:
        changes = await read(request, Names)
        return await _sessions(request).rename(session_id, changes.model_dump(exclude_none=True))

    @app.delete("/sessions/{session_id}")
    async def delete(request: Request, session_id: str, hard: bool = False) -> dict[str, Any]:
        """Hide a session, or with `hard` erase every row of it."""
        return await _sessions(request).delete(session_id, hard=hard)

    @app.get("/sessions/{session_id}/history")
    async def history(request: Request, session_id: str) -> dict[str, Any]:
        return await _sessions(request).history(session_id)

    @app.get("/sessions/{session_id}/pending-approvals")
    async def pending(request: Request, session_id: str) -> dict[str, Any]:
        return await _sessions(request).pending_approvals(session_id)

    @app.get("/sessions/{session_id}/audit")
    async def audited(request: Request, session_id: str, results: bool = False) -> Response:
        """Who decided what, oldest first; `Accept: application/x-ndjson` gives a line for each entry.

        With `results`, a line for each result follows: `python -m cli verify` checks such a file.
        """
        found = await _sessions(request).audit(session_id)
        if "application/x-ndjson" in request.headers.get("accept", ""):
            told = found["entries"]
            if results:
                told = [{"session_id": session_id, **each} for each in [*told, *found["results"]]]
            lines = (bytes(ASCIIResponse(each).body) + b"\n" for each in told)
            return Response(b"".join(lines), media_type="application/x-ndjson")
        return ASCIIResponse(found)


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def __getattr__(name: str) -> FastAPI:
    """`app`, made when it is asked for: importing this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    with _exit_with_a_sentence():
        app = create_app(Settings())
    _settle_memory()
    return app


def main() -> None:
    with _exit_with_a_sentence():
        settings = Settings()
        app = create_app(settings)
        asyncio.run(_try_out(settings))
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    _settle_memory()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level.lower(),
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


@contextmanager
def _exit_with_a_sentence() -> Iterator[None]:
    """And status 1 when the settings, or what they name, cannot be used."""
    try:
        yield
    except ValidationError as error:
        sys.exit("\n".join(_setting(fault) for fault in error.errors(include_url=False, include_input=False)))
    except (OSError, RuntimeError, ValueError, sqlite3.Error, psycopg.Error, SQLAlchemyError) as error:
        sys.exit(f"The service cannot start: {str(error).splitlines()[0]}")


async def _try_out(settings: Settings) -> None:
    """Opens what the service will open, so that a fault is one sentence and no traceback out of the server."""
    with ThreadPoolExecutor(1, "sqlite") as thread:
        async with open_model(settings), open_database(settings.db_url, thread):
            pass


def _setting(fault: ErrorDetails) -> str:
    name = "".join(f"AGENT_RUNTIME__{part}: ".upper() for part in fault["loc"])
    return f"{name}{fault['msg'].removeprefix('Value error, ')}"


def _on_hangup(reload: Callable[[], None]) -> None:
    """Not where there is no such signal, nor outside of the main thread."""
    with suppress(AttributeError, NotImplementedError, RuntimeError, ValueError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def _settle_memory() -> None:
    """What is there when a server starts stays; collecting it again and again costs a tenth of a turn."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


if __name__ == "__main__":
    main()
