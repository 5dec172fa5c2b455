"""Open the graph: in this process, or on a LangGraph server."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import NamedTuple

from langchain_core.language_models import BaseChatModel

from graph.checkpoint.factory import open_checkpointer
from graph.execution.outcome import Graph
from graph.execution.remote import open_remote
from graph.offline import OfflineModel
from graph.permissions.gatekeeper import Gatekeeper
from graph.routing.cache import RoutingCache
from graph.services import Services
from graph.settings import Settings
from graph.topology import build_graph


class Engine(NamedTuple):
    """An open graph, and the model beside it."""

    graph: Graph
    title_model: BaseChatModel | None
    """The model that writes session titles. None for the offline model, and for a model on another server."""


@asynccontextmanager
async def open_graph(
    settings: Settings,
    model: AbstractAsyncContextManager[BaseChatModel],
    gatekeeper: Gatekeeper,
    thread: ThreadPoolExecutor,
    routing_cache: RoutingCache | None = None,
) -> AsyncIterator[Engine]:
    """Open the graph that the settings name, for the length of the block.

    `model` is opened only if the graph runs in this process. `thread` owns the SQLite file. Raises ValueError for
    settings that the agents or the policy cannot work with.
    """
    if settings.graph_url:
        async with open_remote(settings) as remote:
            yield Engine(remote, None)
        return
    async with (
        model as llm,
        open_checkpointer(settings, thread) as checkpointer,
        aclosing(Services.from_settings(llm, settings, gatekeeper, routing_cache)) as services,
    ):
        title_model = llm if settings.llm_titles and not isinstance(llm, OfflineModel) else None
        yield Engine(build_graph(services).compile(checkpointer=checkpointer), title_model)
