"""Routes of the grants: approvals that are remembered."""

from fastapi import APIRouter, Request

from api.dependencies import deps_of
from sessions import service
from sessions.shapes import GrantList, Json, RevokedGrants

router = APIRouter()


@router.get("/sessions/{session_id}/grants", response_model=Json)
async def list_grants(request: Request, session_id: str) -> GrantList:
    """List the active grants, and the narrowest pattern that each open approval could be remembered with."""
    return await service.list_grants(deps_of(request), session_id)


@router.delete("/sessions/{session_id}/grants", response_model=Json)
async def revoke_all_grants(request: Request, session_id: str) -> RevokedGrants:
    """Revoke all grants of the session."""
    return await service.revoke_grants(deps_of(request), session_id)


@router.delete("/sessions/{session_id}/grants/{grant_id}", response_model=Json)
async def revoke_grant(request: Request, session_id: str, grant_id: str) -> RevokedGrants:
    """Revoke one grant."""
    return await service.revoke_grants(deps_of(request), session_id, grant_id)
