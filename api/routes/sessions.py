"""Routes of the sessions."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api import openapi
from api.bodies import ASCIIResponse, read_body
from api.dependencies import deps_of
from graph import wire
from sessions import deletion, service
from sessions.shapes import CreatedSession, DeletedSession, History, Json, PendingApprovals, SessionInfo, SessionList

DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 500, 1000
"""Sessions of one answer: a client that sends no limit shows one page only. Chosen, not measured."""
MAX_OFFSET = 2**31
"""An integer of every database."""
MAX_SEARCH_CHARACTERS, MAX_TITLE_CHARACTERS, MAX_DESCRIPTION_CHARACTERS = 200, 500, 5000
"""Bounds far above what a user types, since every list of sessions carries the texts. Chosen, not measured."""


class SessionUpdate(wire.Incoming):
    """The title and description that a user gives a session."""

    title: str | None = Field(None, max_length=MAX_TITLE_CHARACTERS)
    description: str | None = Field(None, max_length=MAX_DESCRIPTION_CHARACTERS)


router = APIRouter()


@router.get("/sessions", response_model=Json)
async def list_sessions(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE,
    offset: Annotated[int, Query(ge=0, lt=MAX_OFFSET)] = 0,
    q: Annotated[str, Query(max_length=MAX_SEARCH_CHARACTERS)] = "",
) -> SessionList:
    """List the sessions, newest activity first; `q` searches the titles."""
    return await service.list_sessions(deps_of(request), q, limit, offset)


@router.post("/sessions", response_model=Json)
async def create_session(request: Request) -> CreatedSession:
    """Create an empty session."""
    return await service.create_session(deps_of(request))


@router.get("/sessions/{session_id}", response_model=Json)
async def get_session(request: Request, session_id: str) -> SessionInfo:
    """Return one session."""
    return await service.get_session(deps_of(request), session_id)


@router.patch("/sessions/{session_id}", openapi_extra=openapi.request_body(SessionUpdate), response_model=Json)
async def rename_session(request: Request, session_id: str) -> SessionInfo:
    """Change the title, the description or both."""
    changes = await read_body(request, SessionUpdate)
    return await service.rename_session(deps_of(request), session_id, changes.model_dump(exclude_none=True))


@router.delete("/sessions/{session_id}", response_model=Json)
async def delete_session(request: Request, session_id: str, hard: bool = False) -> DeletedSession:
    """Hide a session, or with `hard` erase every row of it. Its run is stopped, its queued messages are dropped."""
    return await deletion.delete_session(deps_of(request), session_id, hard=hard)


@router.get("/sessions/{session_id}/history", response_model=Json)
async def get_history(request: Request, session_id: str) -> History:
    """Return the messages of the conversation."""
    return await service.get_history(deps_of(request), session_id)


@router.get("/sessions/{session_id}/pending-approvals", response_model=Json)
async def list_pending_approvals(request: Request, session_id: str) -> PendingApprovals:
    """List the tool calls that wait for the user's approval."""
    return await service.list_pending_approvals(deps_of(request), session_id)


@router.get("/sessions/{session_id}/audit")
async def get_audit(request: Request, session_id: str, results: bool = False) -> Response:
    """Return the decisions on tool calls, oldest first; `Accept: application/x-ndjson` gives one line per entry.

    With `results`, one line per result follows: `python -m cli verify` checks such a file.
    """
    audit = await service.get_audit(deps_of(request), session_id)
    if "application/x-ndjson" in request.headers.get("accept", ""):
        rows = audit["entries"]
        if results:
            rows = [{"session_id": session_id, **each} for each in [*rows, *audit["results"]]]
        lines = (bytes(ASCIIResponse(each).body) + b"\n" for each in rows)
        return Response(b"".join(lines), media_type="application/x-ndjson")
    return ASCIIResponse(audit)
