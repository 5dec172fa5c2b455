"""Routes that accept a message, stream a run and cancel it."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import openapi, sse
from api.bodies import read_body
from api.dependencies import deps_of, settings_of
from graph import wire
from graph.errors import AgentRuntimeError
from sessions import service
from sessions.request import RunRequest
from sessions.runs.run import RunHandle

UnparsedRequest = wire.Envelope[dict[str, Any]]
"""A request whose message may have faults: they are sent as a chunk, those of the rest as status 422."""

router = APIRouter()


@router.post("/agent/message/stream", response_class=Response, openapi_extra=openapi.STREAM_OPERATION)
async def send_message(request: Request) -> Response:
    """Send a message of the user or of the IDE; the answer is a stream of chunks."""
    heartbeat = settings_of(request).heartbeat_seconds
    envelope = await read_body(request, UnparsedRequest)
    try:
        message = wire.parse_message(envelope.message, wire.MESSAGE_ADAPTER)
        key = wire.validate_idempotency_key(request.headers.get("idempotency-key", ""))
    except AgentRuntimeError as error:
        return sse.stream_events(_make_failed_run(envelope.session_id, error), heartbeat)
    options = wire.StreamOptions(**{name: value or getattr(message.stream, name) for name, value in envelope.stream})
    run_request = RunRequest(envelope.session_id, message, options, key, envelope.busy or message.busy)
    return sse.stream_events(await deps_of(request).runs.submit(run_request), heartbeat)


@router.get("/sessions/{session_id}/stream", response_class=Response, openapi_extra=openapi.JOIN_OPERATION)
async def join_run(request: Request, session_id: str, tokens: bool = False, usage: bool = False) -> Response:
    """Stream the current run, or the last one; with `Last-Event-ID`, the events after that one."""
    await service.get_session(deps_of(request), session_id)
    run = await deps_of(request).runs.join(session_id)
    if run is None:
        return sse.stream_nothing()
    after = sse.parse_last_event_id(run, request.headers.get("last-event-id", ""))
    opt_ins = {"", *(name for name, opted_in in (("tokens", tokens), ("usage", usage)) if opted_in)}
    return sse.stream_events(run, settings_of(request).heartbeat_seconds, after=after, opt_ins=frozenset(opt_ins))


@router.post("/sessions/{session_id}/cancel")
async def cancel_run(request: Request, session_id: str) -> dict[str, Any]:
    """Stop the current run and close the open calls; a second call changes nothing."""
    await service.get_session(deps_of(request), session_id)
    await deps_of(request).runs.cancel(session_id)
    return {"session_id": session_id, "status": "cancelled"}


def _make_failed_run(session_id: str, error: AgentRuntimeError) -> RunHandle:
    """Return a finished run whose only event is the error."""
    run = RunHandle(session_id)
    run.log.add(run.make_error_events(error))
    run.end()
    return run
