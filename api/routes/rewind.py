"""Routes that undo the last turn and fork a conversation."""

from fastapi import APIRouter, Request
from pydantic import Field

from api import openapi
from api.bodies import read_body
from api.dependencies import deps_of
from graph import wire
from sessions import rewind
from sessions.shapes import ForkedSession, Json, UndoneTurn


class ForkRequest(wire.Incoming):
    """The turn that the copy of a conversation ends with."""

    turn: int | None = Field(None, ge=1, description="Counted from 1 by the user's messages; absent: now.")


router = APIRouter()


@router.post("/sessions/{session_id}/undo", response_model=Json)
async def undo_turn(request: Request, session_id: str) -> UndoneTurn:
    """Return to the state before the user's last message; changes in the workspace stay.

    Waits for a current run. 409 `nothing_to_undo` if there is no message, `session_busy` if the run takes too long.
    """
    return await rewind.undo_turn(deps_of(request), session_id)


@router.post(
    "/sessions/{session_id}/fork", openapi_extra=openapi.request_body(ForkRequest, required=False), response_model=Json
)
async def fork_session(request: Request, session_id: str) -> ForkedSession:
    """Create a session with this one's history, as of now or of the end of a `turn`; without grants and audit."""
    chosen = await read_body(request, ForkRequest) if await request.body() else ForkRequest()
    return await rewind.fork_session(deps_of(request), session_id, chosen.turn)
