"""The HTTP service: the app, its start and its end. `uvicorn server:app` serves it."""

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI
from langchain_core.language_models import BaseChatModel
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from api import openapi
from api.access_log import hide_query_strings
from api.bodies import ASCIIResponse
from api.errors import add_error_handlers
from api.keys import load_keys
from api.middleware.guard import Guard
from api.middleware.readiness import Readiness, ReadinessMiddleware, run_startup
from api.routes import ROUTERS
from api.signals import on_exit, on_hangup
from api.version import VERSION
from graph.db.retry import DATABASE_ERRORS, is_transient
from graph.execution.engine import open_graph
from graph.llm import open_model
from graph.permissions.gatekeeper import Gatekeeper
from graph.routing.cache import RoutingCache
from graph.settings import Settings
from sessions.deps import Deps
from sessions.janitor import Janitor
from sessions.runs.lifecycle import SHUTDOWN_GRACE_SECONDS
from sessions.runs.service import Runs
from sessions.store.database import open_database

GC_THRESHOLDS = (10_000, 20, 100)
"""Far above Python's own 700, 10 and 10, so that few collections happen within a turn. Chosen, not measured."""

WORKER_SILENCE_SECONDS = 60
"""After such a silence a worker is replaced. Importing the modules takes 3 s of a free core; with the 5 s that uvicorn
allows, the workers of a busy machine are replaced for ever before they answer."""


def create_app(settings: Settings, model: AbstractAsyncContextManager[BaseChatModel] | None = None) -> FastAPI:
    """Build the app. Without a `model` it opens the one that the settings name.

    Raises ValueError for a weak key, and for a policy that cannot be used.
    """
    readiness = Readiness()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logging.getLogger("agent_runtime").setLevel(settings.log_level)
        hide_query_strings()
        async with _open_components(app, model or open_model(settings)) as start:
            runs: Runs = app.state.deps.runs
            with on_exit(runs.replica.begin_shutdown):
                try:
                    async with run_startup(start, readiness):
                        yield
                finally:
                    await runs.replica.close()

    app = FastAPI(
        title="Agent Runtime", version=VERSION, lifespan=lifespan, default_response_class=ASCIIResponse, redoc_url=None
    )
    app.state.settings = settings
    app.state.gatekeeper = Gatekeeper(settings.policy_file)
    app.state.routing_cache = RoutingCache(settings)
    app.add_middleware(ReadinessMiddleware, readiness=readiness)
    app.add_middleware(Guard, keys=load_keys(settings))
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    openapi.extend_openapi(app)
    return app


@asynccontextmanager
async def _open_components(
    app: FastAPI, model: AbstractAsyncContextManager[BaseChatModel]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Open the database and the graph, and put the objects of the routes into the app's state.

    Yield a function that prepares the database and starts the background work.
    """
    state, settings = app.state, app.state.settings
    with ThreadPoolExecutor(1, "sqlite") as thread:
        async with (
            open_database(settings, thread) as database,
            open_graph(settings, model, state.gatekeeper, thread, state.routing_cache) as (graph, title_model),
        ):
            runs = Runs(database, graph, state.gatekeeper, settings, title_model)
            state.deps = deps = Deps(database, graph, runs, settings)
            state.janitor = janitor = Janitor(deps)
            on_hangup(state.gatekeeper.reload)

            async def start() -> None:
                await database.prepare(graph.checkpointer.prepare)
                await runs.replica.start()
                janitor.start()

            yield start


def __getattr__(name: str) -> FastAPI:
    """Build `app` when it is first read: an import of this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    with _exit_with_message():
        app = create_app(Settings())
    _log_to_stderr()
    _tune_garbage_collector()
    return app


def main() -> None:
    """Serve the app until a signal ends the process; exit with a sentence and status 1 if it cannot start."""
    with _exit_with_message():
        settings = Settings()
        app = create_app(settings)
        asyncio.run(_try_startup(settings))
    _log_to_stderr()
    _tune_garbage_collector()
    uvicorn.run(
        app if settings.workers == 1 else "server:app",
        workers=settings.workers,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level.lower(),
        timeout_graceful_shutdown=settings.shutdown_seconds + SHUTDOWN_GRACE_SECONDS,
        timeout_worker_healthcheck=WORKER_SILENCE_SECONDS,
    )


@contextmanager
def _exit_with_message() -> Iterator[None]:
    """Exit with a sentence and status 1 if the settings, or the files and services that they name, cannot be used."""
    try:
        yield
    except ValidationError as error:
        sys.exit("\n".join(_describe_fault(fault) for fault in error.errors(include_url=False, include_input=False)))
    except (OSError, RuntimeError, ValueError, *DATABASE_ERRORS) as error:
        sys.exit(f"The service cannot start: {str(error).splitlines()[0]}")


async def _try_startup(settings: Settings) -> None:
    """Open everything that the service will open, so that a fault is one sentence and no traceback of the server.

    A database that is not available yet is no fault: the service waits for it.
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


def _describe_fault(fault: ErrorDetails) -> str:
    """Return the fault of a setting with the name of its variable."""
    name = "".join(f"AGENT_RUNTIME__{part}: ".upper() for part in fault["loc"])
    return f"{name}{fault['msg'].removeprefix('Value error, ')}"


def _log_to_stderr() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")


def _tune_garbage_collector() -> None:
    """Exclude the objects of the start from garbage collection: looking at them again costs a tenth of a turn."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


if __name__ == "__main__":
    main()
