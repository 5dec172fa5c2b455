"""The HTTP edge: the app, its start and its end, and the streams of runs. `uvicorn server:app` serves it."""

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI
from langchain_core.language_models import BaseChatModel
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from api import openapi
from api.bodies import ASCIIResponse
from api.errors import add_error_handlers
from api.keys import keys
from api.middleware.guard import Guard
from api.middleware.readiness import Readiness, Startup, started
from api.routes.agents import add_agent_routes
from api.routes.grants import add_grant_routes
from api.routes.health import add_health_routes
from api.routes.messages import add_message_routes
from api.routes.policy import add_policy_routes
from api.routes.rewind import add_rewind_routes
from api.routes.routing import add_routing_routes
from api.routes.sessions import add_session_routes
from api.routes.views import add_view_routes
from api.signals import on_exit, on_hangup
from api.version import VERSION
from graph.db.retry import DATABASE_ERRORS, is_transient
from graph.execution.engine import open_graph
from graph.llm import open_model
from graph.permissions.gatekeeper import Gatekeeper
from graph.routing.cache import Classifications
from graph.settings import Settings
from sessions.janitor import Janitor
from sessions.runs.replica import CLOSING_SECONDS
from sessions.runs.service import Runs
from sessions.service import Sessions
from sessions.store.database import open_database


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
    add_error_handlers(app)
    add_health_routes(app)
    add_message_routes(app, settings)
    add_agent_routes(app, settings)
    add_policy_routes(app, gatekeeper)
    add_session_routes(app)
    add_grant_routes(app)
    add_view_routes(app)
    add_rewind_routes(app)
    add_routing_routes(app, settings, known)
    openapi.documented(app)
    return app


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
