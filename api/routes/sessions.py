"""Routes of the sessions."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api import openapi
from api.bodies import ASCIIResponse, read_body
from api.dependencies import sessions_of
from graph import wire


class SessionUpdate(wire.Incoming):
    """The title and description that a user gives a session."""

    title: str | None = Field(None, max_length=500)
    description: str | None = Field(None, max_length=5000)


router = APIRouter()


@router.get("/sessions")
async def list_sessions(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
    offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    q: Annotated[str, Query(max_length=200)] = "",
) -> dict[str, Any]:
    """List the sessions, newest activity first; `q` searches the titles."""
    return await sessions_of(request).list_sessions(q, limit, offset)


@router.post("/sessions")
async def create_session(request: Request) -> dict[str, Any]:
    """Create an empty session."""
    return await sessions_of(request).create()


@router.get("/sessions/{session_id}")
async def get_session(request: Request, session_id: str) -> dict[str, Any]:
    """Return one session."""
    return await sessions_of(request).get_session(session_id)


@router.patch("/sessions/{session_id}", openapi_extra=openapi.request_body(SessionUpdate))
async def rename_session(request: Request, session_id: str) -> dict[str, Any]:
    """Change the title, the description or both."""
    changes = await read_body(request, SessionUpdate)
    return await sessions_of(request).rename(session_id, changes.model_dump(exclude_none=True))


@router.delete("/sessions/{session_id}")
async def delete_session(request: Request, session_id: str, hard: bool = False) -> dict[str, Any]:
    """Hide a session, or with `hard` erase every row of it. Its run is stopped, queued messages are dropped."""
    return await sessions_of(request).deletion.delete(session_id, hard=hard)


@router.get("/sessions/{session_id}/history")
async def get_history(request: Request, session_id: str) -> dict[str, Any]:
    """Return the messages of the conversation."""
    return await sessions_of(request).get_history(session_id)


@router.get("/sessions/{session_id}/pending-approvals")
async def list_pending_approvals(request: Request, session_id: str) -> dict[str, Any]:
    """List the tool calls that wait for the user's approval."""
    return await sessions_of(request).list_pending_approvals(session_id)


@router.get("/sessions/{session_id}/audit")
async def get_audit(request: Request, session_id: str, results: bool = False) -> Response:
    """Return who decided what, oldest first; `Accept: application/x-ndjson` gives one line per entry.

    With `results`, one line per result follows: `python -m cli verify` checks such a file.
    """
    found = await sessions_of(request).get_audit(session_id)
    if "application/x-ndjson" in request.headers.get("accept", ""):
        rows = found["entries"]
        if results:
            rows = [{"session_id": session_id, **each} for each in [*rows, *found["results"]]]
        lines = (bytes(ASCIIResponse(each).body) + b"\n" for each in rows)
        return Response(b"".join(lines), media_type="application/x-ndjson")
    return ASCIIResponse(found)
