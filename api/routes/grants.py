"""Routes of the grants: approvals that are remembered."""

from typing import Any

from fastapi import APIRouter, Request

from api.dependencies import sessions_of

router = APIRouter()


@router.get("/sessions/{session_id}/grants")
async def list_grants(request: Request, session_id: str) -> dict[str, Any]:
    """List the active grants, and the narrowest pattern that each open approval could be remembered with."""
    return await sessions_of(request).list_grants(session_id)


@router.delete("/sessions/{session_id}/grants")
async def revoke_all_grants(request: Request, session_id: str) -> dict[str, Any]:
    """Revoke all grants of the session."""
    return await sessions_of(request).revoke_grants(session_id)


@router.delete("/sessions/{session_id}/grants/{grant_id}")
async def revoke_grant(request: Request, session_id: str, grant_id: str) -> dict[str, Any]:
    """Revoke one grant."""
    return await sessions_of(request).revoke_grants(session_id, grant_id)
