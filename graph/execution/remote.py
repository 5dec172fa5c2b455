"""The graph on a LangGraph server, behind the same protocol as a compiled graph. Runs and threads live there.

LangGraph's own `RemoteGraph` also streams every state update, and fails on a thread that does not exist yet.
"""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import httpx
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Durability, StateSnapshot, StreamMode
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError
from langgraph_sdk.schema import Run, StreamPart

from graph import wire
from graph.errors import AgentRuntimeError, GraphLost, GraphUnavailable
from graph.execution.closing import close_thread, has_started
from graph.execution.remote_format import (
    build_run_request,
    decode_chunk,
    decode_snapshot,
    derive_thread_id,
    encode_values,
    get_run_id,
    get_thread_id,
)
from graph.run_scope import await_cancellable
from graph.settings import Settings
from graph.state import Input

log = logging.getLogger("agent_runtime.remote")
BEFORE_FIRST_EVENT = "-1"
"""The `Last-Event-ID` that makes the server send a run's events from the first one."""
REQUEST_TIMEOUT_SECONDS = 60
"""Longest silence of one HTTP request. Chosen, not measured."""
LISTED_RUNS = 10
"""Newest runs of a thread that are searched for active ones. A run interrupts the one before it, so few are active."""


@asynccontextmanager
async def open_remote(settings: Settings) -> AsyncIterator["RemoteGraph"]:
    """Open a client of the server that the settings name. The server need not be reachable yet."""
    key = settings.graph_api_key.get_secret_value()
    async with httpx.AsyncClient(
        base_url=settings.graph_url,
        headers={"x-api-key": key} if key else {},
        timeout=httpx.Timeout(REQUEST_TIMEOUT_SECONDS, connect=settings.graph_connect_timeout_seconds),
    ) as http:
        yield RemoteGraph(LangGraphClient(http), settings.graph_name)


class RemoteGraph:
    """A `Graph` on a LangGraph server. Every method raises GraphUnavailable. Configs name sessions, not threads."""

    def __init__(self, client: LangGraphClient, name: str) -> None:
        self._client = client
        self._name = name
        self.checkpointer = self
        """The server keeps the threads: this object deletes them as well."""

    async def astream(
        self,
        inputs: Input | Command[Any] | None,
        config: RunnableConfig,
        *,
        context: wire.StreamOptions,
        stream_mode: Sequence[StreamMode],
        durability: Durability,
    ) -> AsyncIterator[tuple[str, Any]]:
        """Yield `custom` events as they come, then the `values` of the idle thread, once.

        A cancellation interrupts the run on the server and closes the thread. Raises GraphLost when the run was begun
        and its result is not known, and RuntimeError when the run failed on the server.
        """
        thread = get_thread_id(config)
        with _translate_http_errors():
            request: Any = build_run_request(inputs, config, context, durability)
            run = await self._client.runs.create(thread, self._name, **request)
        try:
            async for chunk in self._stream_chunks(thread, run["run_id"]):
                yield "custom", chunk
            with _translate_http_errors(GraphLost):
                snapshot = await self._fetch_state(thread, config)
            _verify_final_state(snapshot, config)
        except GraphUnavailable:
            raise
        except AgentRuntimeError as cancellation:
            yield "custom", wire.error_chunk(cancellation)
            with _translate_http_errors(GraphLost):
                snapshot = await self._stop_run(thread, run["run_id"], inputs, config)
        yield "values", {**snapshot.values, "__interrupt__": snapshot.interrupts}

    async def _stream_chunks(self, thread: str, run_id: str) -> AsyncIterator[wire.Chunk]:
        """Yield the chunks of a run, from its first one. The SDK reconnects a broken connection for some seconds."""
        parts: Any = self._client.runs.join_stream(
            thread, run_id, stream_mode="custom", last_event_id=BEFORE_FIRST_EVENT
        )
        with _translate_http_errors(GraphLost):
            async with aclosing(parts):
                while part := await await_cancellable(_read_next_part(parts)):
                    if part.event == "error":
                        await self._client.runs.get(thread, run_id)  # raises if the server does not know the run
                        raise RuntimeError(f"the run failed on the LangGraph server: {part.data}")
                    if part.event == "custom":
                        yield decode_chunk(part.data)

    async def _stop_run(
        self, thread: str, run_id: str, inputs: Input | Command[Any] | None, config: RunnableConfig
    ) -> StateSnapshot:
        """Interrupt the run, close the thread unless it paused, and return what is left of it."""
        await self._interrupt_run(thread, run_id)
        snapshot = await self._fetch_state(thread, config)
        if snapshot.interrupts:
            return snapshot
        message = (
            None
            if isinstance(inputs, Command) or not inputs
            else wire.parse_message(inputs["message"], wire.START_ADAPTER)
        )
        await close_thread(self, config, message)
        return await self._fetch_state(thread, config)

    async def aget_state(self, config: RunnableConfig) -> StateSnapshot:
        """Return the state of a thread.

        If the config names a run, wait until that run is over, and interrupt every other run of the thread.
        """
        thread = get_thread_id(config)
        with _translate_http_errors():
            if run_id := get_run_id(config):
                await self._wait_until_idle(thread, run_id)
            return await self._fetch_state(thread, config)

    async def _wait_until_idle(self, thread: str, own_run_id: str) -> None:
        for run in await self._list_active_runs(thread):
            try:
                if (run["metadata"] or {}).get("run") == own_run_id:
                    await await_cancellable(self._client.runs.join(thread, run["run_id"]))
                    continue
            except AgentRuntimeError:
                pass  # the run was cancelled while this method waited for it
            await self._interrupt_run(thread, run["run_id"])

    async def _list_active_runs(self, thread: str) -> list[Run]:
        try:
            newest = await self._client.runs.list(thread, limit=LISTED_RUNS)
        except NotFoundError:
            return []
        return [run for run in newest if run["status"] in ("pending", "running")]

    async def _interrupt_run(self, thread: str, run_id: str) -> None:
        """Interrupt a run and wait until it is over. A run that is over already is left as it is."""
        try:
            await self._client.runs.cancel(thread, run_id, wait=True)
        except (NotFoundError, ConflictError):
            return

    async def _fetch_state(self, thread: str, config: RunnableConfig) -> StateSnapshot:
        try:
            return decode_snapshot(await self._client.threads.get_state(thread), config)
        except NotFoundError:
            return decode_snapshot({}, config)

    async def aupdate_state(
        self, config: RunnableConfig, values: dict[str, Any] | None, as_node: str | None = None
    ) -> RunnableConfig:
        """Update the state of a thread, which is created if it does not exist. Return the config unchanged."""
        thread, run_id = get_thread_id(config), get_run_id(config)
        marked: Any = {"run": run_id} if run_id else None  # the server stores it in the checkpoint's metadata
        with _translate_http_errors():
            await self._client.threads.create(thread_id=thread, if_exists="do_nothing", graph_id=self._name)
            await self._client.threads.update_state(thread, encode_values(values), as_node=as_node, checkpoint=marked)
        return config

    async def prepare(self) -> None:
        """Do nothing: the server creates the tables of its threads."""

    async def adelete_thread(self, session_id: str) -> None:
        """Delete the thread of a session, if it exists."""
        with _translate_http_errors():
            try:
                await self._client.threads.delete(derive_thread_id(session_id))
            except NotFoundError:
                return


def _verify_final_state(snapshot: StateSnapshot, config: RunnableConfig) -> None:
    """Raise RuntimeError if the thread is not in the state that its run must leave it in."""
    if not has_started(snapshot, get_run_id(config)):
        raise RuntimeError("the thread did not accept the message")
    if snapshot.next and not snapshot.interrupts:
        raise RuntimeError("the run stopped half-way on the LangGraph server")


async def _read_next_part(parts: AsyncIterator[StreamPart]) -> StreamPart | None:
    return await anext(parts, None)


@contextmanager
def _translate_http_errors(error_class: type[GraphUnavailable] = GraphUnavailable) -> Iterator[None]:
    """Raise `error_class` in place of an HTTP error of the block."""
    try:
        yield
    except httpx.HTTPError as error:
        log.error("the LangGraph server failed: %r", error)
        raise error_class() from error
