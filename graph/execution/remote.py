"""The graph on a LangGraph server, with what the service uses of a compiled one. Runs and threads live there.

LangGraph's own `RemoteGraph` streams every update of the state besides, and fails on a thread that is not there yet.
"""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID, uuid5

import httpx
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Interrupt, Overwrite, StateSnapshot
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError
from langgraph_sdk.schema import Run, StreamPart

from graph import wire
from graph.cancellation import stoppable
from graph.errors import AgentRuntimeError, GraphLost, GraphUnavailable
from graph.execution.closing import close_thread, has_started
from graph.settings import Settings
from graph.state import as_message

log = logging.getLogger("agent_runtime.remote")
THREADS = UUID("5b0f4b1e-6d57-4c0e-9f0e-0c6f3b1f7a52")
"""The namespace of thread ids: a session's is the same for every edge."""
FROM_THE_START = "-1"


@asynccontextmanager
async def open_remote(settings: Settings) -> AsyncIterator["RemoteGraph"]:
    """It need not be there yet."""
    key = settings.graph_api_key.get_secret_value()
    async with httpx.AsyncClient(
        base_url=settings.graph_url,
        headers={"x-api-key": key} if key else {},
        timeout=httpx.Timeout(60, connect=settings.graph_connect_timeout_seconds),
    ) as http:
        yield RemoteGraph(LangGraphClient(http), settings.graph_name)


class RemoteGraph:
    """Every method raises GraphUnavailable. Thread ids are those of sessions."""

    def __init__(self, client: LangGraphClient, name: str) -> None:
        self._client = client
        self._name = name
        self.checkpointer = self
        """Threads are deleted there as well."""

    async def astream(
        self, given: Any, config: RunnableConfig, *, context: wire.StreamOptions, stream_mode: Any, durability: Any
    ) -> AsyncIterator[tuple[str, Any]]:
        """`custom` events as they come, then the `values` of the thread at rest, once.

        A wish to stop the run interrupts it there, and the thread is laid to rest. Raises GraphLost when the run was
        begun and what came of it is not known.
        """
        thread = _thread(config)
        with _reachable():
            run = await self._client.runs.create(thread, self._name, **_asked(given, config, context, durability))
        try:
            async for chunk in self._told(thread, run["run_id"]):
                yield "custom", chunk
            with _reachable(GraphLost):
                snapshot = await self._state(thread, config)
            _took_in(snapshot, config)
        except GraphUnavailable:
            raise
        except AgentRuntimeError as wanted:
            yield "custom", wire.failure(wanted)
            with _reachable(GraphLost):
                snapshot = await self._stopped(thread, run["run_id"], given, config)
        yield "values", {**snapshot.values, "__interrupt__": snapshot.interrupts}

    async def _told(self, thread: str, run_id: str) -> AsyncIterator[wire.Chunk]:
        """The chunks of a run, from its first; a connection that breaks is made again for some seconds."""
        parts: Any = self._client.runs.join_stream(thread, run_id, stream_mode="custom", last_event_id=FROM_THE_START)
        with _reachable(GraphLost):
            async with aclosing(parts):
                while part := await stoppable(_next(parts)):
                    if part.event == "error":
                        await self._client.runs.get(thread, run_id)  # fails if what failed is that it was forgotten
                        raise RuntimeError(f"the run failed on the graph's server: {part.data}")
                    if part.event == "custom":
                        yield _unremembered(wire.CHUNK.validate_python(part.data))

    async def _stopped(self, thread: str, run_id: str, given: Any, config: RunnableConfig) -> StateSnapshot:
        await self._interrupt(thread, run_id)
        snapshot = await self._state(thread, config)
        if snapshot.interrupts:
            return snapshot
        message = None if isinstance(given, Command) or not given else wire.parse(given["message"], wire.START)
        await close_thread(self, config, message)
        return await self._state(thread, config)

    async def aget_state(self, config: RunnableConfig) -> StateSnapshot:
        """With a run in the metadata: as that run leaves it. It is waited for; what else works there is interrupted."""
        thread = _thread(config)
        with _reachable():
            if mark := _mark(config):
                await self._at_rest(thread, mark)
            return await self._state(thread, config)

    async def _at_rest(self, thread: str, mark: str) -> None:
        for run in await self._working(thread):
            try:
                if (run["metadata"] or {}).get("run") == mark:
                    await stoppable(self._client.runs.join(thread, run["run_id"]))
                    continue
            except AgentRuntimeError:
                pass  # stopped while it was waited for
            await self._interrupt(thread, run["run_id"])

    async def _working(self, thread: str) -> list[Run]:
        try:
            newest = await self._client.runs.list(thread, limit=10)
        except NotFoundError:
            return []
        return [run for run in newest if run["status"] in ("pending", "running")]

    async def _interrupt(self, thread: str, run_id: str) -> None:
        """And wait until it is over; it may be so already."""
        try:
            await self._client.runs.cancel(thread, run_id, wait=True)
        except (NotFoundError, ConflictError):
            return

    async def _state(self, thread: str, config: RunnableConfig) -> StateSnapshot:
        try:
            found: Any = await self._client.threads.get_state(thread)
        except NotFoundError:
            found = {}
        waiting = [pause for task in found.get("tasks") or [] for pause in task["interrupts"]]
        return StateSnapshot(
            values=_as_here(found.get("values") or {}),
            next=tuple(found.get("next") or ()),
            config=config,
            metadata=found.get("metadata"),
            created_at=found.get("created_at"),
            parent_config=None,
            tasks=(),
            interrupts=tuple(Interrupt(value=pause["value"], id=pause["id"]) for pause in waiting),
        )

    async def aupdate_state(
        self, config: RunnableConfig, values: dict[str, Any] | None, as_node: str | None = None
    ) -> RunnableConfig:
        thread = _thread(config)
        with _reachable():
            await self._client.threads.create(thread_id=thread, if_exists="do_nothing", graph_id=self._name)
            marked: Any = {"run": _mark(config)} if _mark(config) else None  # the server puts it in the metadata
            await self._client.threads.update_state(thread, _as_there(values), as_node=as_node, checkpoint=marked)
        return config

    async def prepare(self) -> None:
        """The tables of threads are the server's."""

    async def adelete_thread(self, session_id: str) -> None:
        with _reachable():
            try:
                await self._client.threads.delete(thread_of(session_id))
            except NotFoundError:
                return


def thread_of(session_id: str) -> str:
    return str(uuid5(THREADS, session_id))


def _thread(config: RunnableConfig) -> str:
    return thread_of(config["configurable"]["thread_id"])


def _mark(config: RunnableConfig) -> str:
    """Our run's id."""
    return str((config.get("metadata") or {}).get("run", ""))


def _asked(given: Any, config: RunnableConfig, context: wire.StreamOptions, durability: Any) -> dict[str, Any]:
    """What still works on the thread is of an edge that lost it: it is interrupted."""
    mark = {"run": _mark(config)}
    return {
        "input": None if isinstance(given, Command) else given,
        "command": {"resume": given.resume} if isinstance(given, Command) else None,
        "config": {"metadata": mark, "recursion_limit": config["recursion_limit"]},
        "metadata": mark,
        "context": context.model_dump(),
        "stream_mode": ["custom"],
        "stream_resumable": True,
        "durability": durability,
        "multitask_strategy": "interrupt",
        "if_not_exists": "create",
    }


def _took_in(snapshot: StateSnapshot, config: RunnableConfig) -> None:
    """Raises RuntimeError for a thread that is not as its run should have left it."""
    if not has_started(snapshot, _mark(config)):
        raise RuntimeError("the thread did not take the message in")
    if snapshot.next and not snapshot.interrupts:
        raise RuntimeError("the run was cut off on the graph's server")


async def _next(parts: AsyncIterator[StreamPart]) -> StreamPart | None:
    return await anext(parts, None)


def _unremembered(chunk: wire.Chunk) -> wire.Chunk:
    """Grants are rows of ours, and do not reach the gate there: none is proposed."""
    if not isinstance(chunk, wire.ToolCall) or "remember" not in (chunk.metadata or {}):
        return chunk
    about = {name: value for name, value in (chunk.metadata or {}).items() if name != "remember"}
    return chunk.model_copy(update={"metadata": about})


def _as_here(values: dict[str, Any]) -> dict[str, Any]:
    gates = {call: {**gate, "always_asks": True} for call, gate in (values.get("gates") or {}).items()}
    return {**values, "messages": [*map(as_message, values.get("messages") or [])], "gates": gates}


def _as_there(values: dict[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """Messages as JSON, and what takes the place of all that was there in the form that survives JSON."""
    match value:
        case Overwrite():
            return {"__overwrite__": _plain(value.value)}
        case [BaseMessage(), *_]:
            return [message.model_dump(mode="json") for message in value]
    return value


@contextmanager
def _reachable(otherwise: type[GraphUnavailable] = GraphUnavailable) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        log.error("the graph's server failed: %r", error)
        raise otherwise() from error
