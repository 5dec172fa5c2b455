"""The REST calls on the life of a session: seen as of one moment, taken back, copied, exported."""

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import Field
from starlette.responses import Response

from edge import openapi
from edge.bodies import ASCIIResponse, read
from edge.rest import sessions_of
from graph import wire
from sessions.rewind import NoSuchTurn, NothingToUndo


class Fork(wire.Incoming):
    """Which of a conversation's turns a copy ends with."""

    turn: int | None = Field(None, ge=1, description="Counted from 1 by the user's messages; absent: now.")


def life_routes(app: FastAPI) -> None:
    _view_routes(app)
    _past_routes(app)

    @app.exception_handler(NothingToUndo)
    async def nothing(_: Request, error: NothingToUndo) -> Response:
        return ASCIIResponse({"error": str(error), "code": error.code}, 409)

    @app.exception_handler(NoSuchTurn)
    async def no_turn(_: Request, error: NoSuchTurn) -> Response:
        return ASCIIResponse({"detail": str(error), "code": error.code}, 422)


def _view_routes(app: FastAPI) -> None:
    @app.get("/sessions/{session_id}/view")
    async def view(
        request: Request, session_id: str, messages: Annotated[int, Query(ge=0, le=1000)] = 50
    ) -> dict[str, Any]:
        """What a client needs to open a session again, all of one moment; with the last so many `messages`.

        `last_event_id` is where to join its stream: after the last event of a run that is over, at the start of one
        that goes on (`run`), whose message and chunks are not part of the history yet.
        """
        return await sessions_of(request).views.view(session_id, messages)

    @app.get("/sessions/{session_id}/calls")
    async def calls(request: Request, session_id: str) -> dict[str, Any]:
        """Each tool call of the history: who asked for it, what was decided, when it was sent and answered.

        Calls that never left the service have no times.
        """
        return await sessions_of(request).views.calls(session_id)

    @app.get("/sessions/{session_id}/usage")
    async def usage(
        request: Request, session_id: str, runs: Annotated[int, Query(ge=0, le=1000)] = 50
    ) -> dict[str, Any]:
        """What the session's model calls cost, by agent, by purpose, in its newest `runs`; and its budgets.

        `cost` is null if no call has a price; `unpriced_calls` have none. Undoing gives nothing back.
        """
        return await sessions_of(request).views.usage(session_id, runs)

    @app.get("/sessions/{session_id}/export")
    async def export(request: Request, session_id: str) -> dict[str, Any]:
        """The whole session as one document: history, audit, grants, calls, runs with their events, usage.

        Not of a session that was deleted.
        """
        return await sessions_of(request).views.export(session_id)


def _past_routes(app: FastAPI) -> None:
    @app.post("/sessions/{session_id}/undo")
    async def undo(request: Request, session_id: str) -> dict[str, Any]:
        """Back to before the user's last message; what was done in the workspace since stays done.

        A run that goes on is waited for. 409 `nothing_to_undo` if there is no message, `session_busy` if it goes on
        for too long.
        """
        return await sessions_of(request).rewinding.undo(session_id)

    @app.post("/sessions/{session_id}/fork", openapi_extra=openapi.body(Fork, required=False))
    async def fork(request: Request, session_id: str) -> dict[str, Any]:
        """A new session with this one's history, from now or from the end of a `turn`; without its grants and audit."""
        chosen = await read(request, Fork) if await request.body() else Fork()
        return await sessions_of(request).rewinding.fork(session_id, chosen.turn)
