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
from graph.errors import AgentRuntimeError, GraphLost, GraphUnavailable
from graph.execution.closing import close_thread, has_started
from graph.run_scope import await_cancellable
from graph.settings import Settings
from graph.state import convert_to_message

log = logging.getLogger("agent_runtime.remote")
THREAD_NAMESPACE = UUID("5b0f4b1e-6d57-4c0e-9f0e-0c6f3b1f7a52")
"""The namespace of thread ids: a session's is the same for every edge."""
BEFORE_FIRST_EVENT = "-1"


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
        self, inputs: Any, config: RunnableConfig, *, context: wire.StreamOptions, stream_mode: Any, durability: Any
    ) -> AsyncIterator[tuple[str, Any]]:
        """`custom` events as they come, then the `values` of the thread at rest, once.

        A wish to stop the run interrupts it there, and the thread is laid to rest. Raises GraphLost when the run was
        begun and what came of it is not known.
        """
        thread = _get_thread_id(config)
        with _translate_http_errors():
            run = await self._client.runs.create(
                thread, self._name, **_build_run_request(inputs, config, context, durability)
            )
        try:
            async for chunk in self._stream_chunks(thread, run["run_id"]):
                yield "custom", chunk
            with _translate_http_errors(GraphLost):
                snapshot = await self._fetch_state(thread, config)
            _verify_final_state(snapshot, config)
        except GraphUnavailable:
            raise
        except AgentRuntimeError as wanted:
            yield "custom", wire.error_chunk(wanted)
            with _translate_http_errors(GraphLost):
                snapshot = await self._stop_run(thread, run["run_id"], inputs, config)
        yield "values", {**snapshot.values, "__interrupt__": snapshot.interrupts}

    async def _stream_chunks(self, thread: str, run_id: str) -> AsyncIterator[wire.Chunk]:
        """The chunks of a run, from its first; a connection that breaks is made again for some seconds."""
        parts: Any = self._client.runs.join_stream(
            thread, run_id, stream_mode="custom", last_event_id=BEFORE_FIRST_EVENT
        )
        with _translate_http_errors(GraphLost):
            async with aclosing(parts):
                while part := await await_cancellable(_read_next_part(parts)):
                    if part.event == "error":
                        await self._client.runs.get(thread, run_id)  # fails if what failed is that it was forgotten
                        raise RuntimeError(f"the run failed on the graph's server: {part.data}")
                    if part.event == "custom":
                        yield _strip_grant_proposal(wire.CHUNK_ADAPTER.validate_python(part.data))

    async def _stop_run(self, thread: str, run_id: str, inputs: Any, config: RunnableConfig) -> StateSnapshot:
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
        """With a run in the metadata: as that run leaves it. It is waited for; what else works there is interrupted."""
        thread = _get_thread_id(config)
        with _translate_http_errors():
            if mark := _get_run_id(config):
                await self._wait_until_idle(thread, mark)
            return await self._fetch_state(thread, config)

    async def _wait_until_idle(self, thread: str, own_run_id: str) -> None:
        for run in await self._list_active_runs(thread):
            try:
                if (run["metadata"] or {}).get("run") == own_run_id:
                    await await_cancellable(self._client.runs.join(thread, run["run_id"]))
                    continue
            except AgentRuntimeError:
                pass  # stopped while it was waited for
            await self._interrupt_run(thread, run["run_id"])

    async def _list_active_runs(self, thread: str) -> list[Run]:
        try:
            newest = await self._client.runs.list(thread, limit=10)
        except NotFoundError:
            return []
        return [run for run in newest if run["status"] in ("pending", "running")]

    async def _interrupt_run(self, thread: str, run_id: str) -> None:
        """And wait until it is over; it may be so already."""
        try:
            await self._client.runs.cancel(thread, run_id, wait=True)
        except (NotFoundError, ConflictError):
            return

    async def _fetch_state(self, thread: str, config: RunnableConfig) -> StateSnapshot:
        try:
            found: Any = await self._client.threads.get_state(thread)
        except NotFoundError:
            found = {}
        waiting = [pause for task in found.get("tasks") or [] for pause in task["interrupts"]]
        return StateSnapshot(
            values=_decode_values(found.get("values") or {}),
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
        thread = _get_thread_id(config)
        with _translate_http_errors():
            await self._client.threads.create(thread_id=thread, if_exists="do_nothing", graph_id=self._name)
            marked: Any = (
                {"run": _get_run_id(config)} if _get_run_id(config) else None
            )  # the server puts it in the metadata
            await self._client.threads.update_state(thread, _encode_values(values), as_node=as_node, checkpoint=marked)
        return config

    async def prepare(self) -> None:
        """The tables of threads are the server's."""

    async def adelete_thread(self, session_id: str) -> None:
        with _translate_http_errors():
            try:
                await self._client.threads.delete(derive_thread_id(session_id))
            except NotFoundError:
                return


def derive_thread_id(session_id: str) -> str:
    return str(uuid5(THREAD_NAMESPACE, session_id))


def _get_thread_id(config: RunnableConfig) -> str:
    return derive_thread_id(config["configurable"]["thread_id"])


def _get_run_id(config: RunnableConfig) -> str:
    """Our run's id."""
    return str((config.get("metadata") or {}).get("run", ""))


def _build_run_request(
    inputs: Any, config: RunnableConfig, context: wire.StreamOptions, durability: Any
) -> dict[str, Any]:
    """What still works on the thread is of an edge that lost it: it is interrupted."""
    mark = {"run": _get_run_id(config)}
    return {
        "input": None if isinstance(inputs, Command) else inputs,
        "command": {"resume": inputs.resume} if isinstance(inputs, Command) else None,
        "config": {"metadata": mark, "recursion_limit": config["recursion_limit"]},
        "metadata": mark,
        "context": context.model_dump(),
        "stream_mode": ["custom"],
        "stream_resumable": True,
        "durability": durability,
        "multitask_strategy": "interrupt",
        "if_not_exists": "create",
    }


def _verify_final_state(snapshot: StateSnapshot, config: RunnableConfig) -> None:
    """Raises RuntimeError for a thread that is not as its run should have left it."""
    if not has_started(snapshot, _get_run_id(config)):
        raise RuntimeError("the thread did not take the message in")
    if snapshot.next and not snapshot.interrupts:
        raise RuntimeError("the run was cut off on the graph's server")


async def _read_next_part(parts: AsyncIterator[StreamPart]) -> StreamPart | None:
    return await anext(parts, None)


def _strip_grant_proposal(chunk: wire.Chunk) -> wire.Chunk:
    """Grants are rows of ours, and do not reach the gate there: none is proposed."""
    if not isinstance(chunk, wire.ToolCall) or "remember" not in (chunk.metadata or {}):
        return chunk
    about = {name: value for name, value in (chunk.metadata or {}).items() if name != "remember"}
    return chunk.model_copy(update={"metadata": about})


def _decode_values(values: dict[str, Any]) -> dict[str, Any]:
    gates = {call: {**gate, "always_asks": True} for call, gate in (values.get("gates") or {}).items()}
    return {**values, "messages": [*map(convert_to_message, values.get("messages") or [])], "gates": gates}


def _encode_values(values: dict[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    return {name: _encode_value(value) for name, value in values.items()}


def _encode_value(value: Any) -> Any:
    """Messages as JSON, and what takes the place of all that was there in the form that survives JSON."""
    match value:
        case Overwrite():
            return {"__overwrite__": _encode_value(value.value)}
        case [BaseMessage(), *_]:
            return [message.model_dump(mode="json") for message in value]
    return value


@contextmanager
def _translate_http_errors(error_class: type[GraphUnavailable] = GraphUnavailable) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        log.error("the graph's server failed: %r", error)
        raise error_class() from error
