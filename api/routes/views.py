"""Routes that show a whole session as of one moment."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from api.dependencies import deps_of
from sessions import views
from sessions.shapes import CallList, Json, SessionExport, SessionView

DEFAULT_ROWS, MAX_ROWS = 50, 1000
"""Messages or runs of one answer: more than a screen shows, few enough for one answer. Chosen, not measured."""

router = APIRouter()


@router.get("/sessions/{session_id}/view", response_model=Json)
async def get_view(
    request: Request, session_id: str, messages: Annotated[int, Query(ge=0, le=MAX_ROWS)] = DEFAULT_ROWS
) -> SessionView:
    """Return what a client needs to open a session again, with the last `messages` messages.

    `last_event_id` is the place to join the stream: after the last event of a finished run, or at the start of the
    current `run`. The message and the chunks of a current run are not part of the history yet.
    """
    return await views.view_session(deps_of(request), session_id, messages)


@router.get("/sessions/{session_id}/calls", response_model=Json)
async def list_calls(request: Request, session_id: str) -> CallList:
    """List the tool calls of the history, each with its agent, its decision and its times.

    Calls that were not sent to a client have no times.
    """
    return await views.list_calls(deps_of(request), session_id)


@router.get("/sessions/{session_id}/usage")
async def get_usage(
    request: Request, session_id: str, runs: Annotated[int, Query(ge=0, le=MAX_ROWS)] = DEFAULT_ROWS
) -> dict[str, Any]:
    """Return the usage of the session's model calls by agent, by purpose and by its newest `runs`, and its budgets.

    `cost` is null if no call has a price; `unpriced_calls` counts those without one. An undo gives nothing back.
    """
    return await views.report_usage(deps_of(request), session_id, runs)


@router.get("/sessions/{session_id}/export", response_model=Json)
async def export_session(request: Request, session_id: str) -> SessionExport:
    """Return the whole session as one document: history, audit, grants, calls, runs with their events, usage.

    A deleted session cannot be exported.
    """
    return await views.export_session(deps_of(request), session_id)
