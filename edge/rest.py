"""The REST calls: agents, the policy, sessions and what belongs to them; and how errors are answered."""

import logging
import re
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.responses import Response

from edge import openapi
from edge.bodies import ASCIIResponse, read, told
from graph import wire
from graph.db.retry import DATABASE_ERRORS, NOT_THERE, RETRY_AFTER
from graph.errors import AgentRuntimeError, GraphUnavailable, Interrupted, SessionBusy
from graph.permissions.gatekeeper import Gatekeeper, explained
from graph.settings import Settings
from prompts import CLASSIFIER, AgentName, team
from sessions.lookup import SessionNotFound
from sessions.service import GrantNotFound, Sessions


class Names(wire.Incoming):
    """What a user may call a session."""

    title: str | None = Field(None, max_length=500)
    description: str | None = Field(None, max_length=5000)


class Question(wire.Incoming):
    """A call that the gate is asked about."""

    agent: AgentName
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)


def rest_routes(app: FastAPI, settings: Settings, gatekeeper: Gatekeeper) -> None:
    _agent_routes(app, settings)
    _policy_routes(app, gatekeeper)
    _session_routes(app)
    _grant_routes(app)


def answer_errors(app: FastAPI) -> None:
    @app.exception_handler(SessionNotFound)
    async def not_found(request: Request, error: SessionNotFound) -> Response:
        """An id that can be none is not repeated."""
        known = re.fullmatch(wire.ID, request.path_params["session_id"])
        return ASCIIResponse({"error": str(error) if known else "Session not found"}, 404)

    @app.exception_handler(GrantNotFound)
    async def no_grant(_: Request, error: GrantNotFound) -> Response:
        return ASCIIResponse({"error": str(error)}, 404)

    @app.exception_handler(SessionBusy)
    async def busy(_: Request, error: SessionBusy) -> Response:
        return ASCIIResponse({"error": str(error), "code": error.code}, 409)

    @app.exception_handler(GraphUnavailable)
    @app.exception_handler(Interrupted)
    async def stopping(_: Request, error: AgentRuntimeError) -> Response:
        return ASCIIResponse({"detail": str(error)}, 503, {"Retry-After": RETRY_AFTER})

    async def no_database(_: Request, error: Exception) -> Response:
        logging.getLogger("agent_runtime").error("the database failed: %s", type(error).__name__)
        return ASCIIResponse({"detail": NOT_THERE}, 503, {"Retry-After": RETRY_AFTER})

    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, no_database)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return ASCIIResponse({"detail": told(error.errors())}, 422)


def _agent_routes(app: FastAPI, settings: Settings) -> None:
    @app.get("/agents")
    async def agents() -> list[dict[str, Any]]:
        """The agents of this mode."""
        return [
            {
                "type": agent.name,
                "name": agent.title,
                "description": agent.description,
                "allowed_tools": list(agent.tools),
                "has_file_restrictions": agent.may_write != ("*",),
            }
            for agent in [CLASSIFIER, *team(settings.multi_agent_mode).values()]
        ]

    @app.get("/agents/{session_id}/current")
    async def current(request: Request, session_id: str) -> dict[str, Any]:
        """Who holds the conversation, and who held it before."""
        return await sessions_of(request).current_agent(session_id)


def _policy_routes(app: FastAPI, gatekeeper: Gatekeeper) -> None:
    @app.get("/policy")
    async def policy() -> dict[str, Any]:
        """The rules, and what they say of each agent and tool."""
        return {**gatekeeper.policy.model_dump(mode="json"), "matrix": gatekeeper.matrix()}

    @app.post("/policy/explain", openapi_extra=openapi.body(Question))
    async def explain(request: Request) -> dict[str, Any]:
        """What the gate would say of a call; nothing is run or stored."""
        asked = await read(request, Question)
        return explained(gatekeeper.verdict(asked.agent, asked.tool, asked.arguments))


def _grant_routes(app: FastAPI) -> None:
    @app.get("/sessions/{session_id}/grants")
    async def granted(request: Request, session_id: str) -> dict[str, Any]:
        """What the user allowed in advance, and what the open approvals could be remembered as."""
        return await sessions_of(request).grants(session_id)

    @app.delete("/sessions/{session_id}/grants")
    async def revoke_all(request: Request, session_id: str) -> dict[str, Any]:
        return await sessions_of(request).revoke(session_id)

    @app.delete("/sessions/{session_id}/grants/{grant_id}")
    async def revoke(request: Request, session_id: str, grant_id: str) -> dict[str, Any]:
        return await sessions_of(request).revoke(session_id, grant_id)


def _session_routes(app: FastAPI) -> None:
    @app.get("/sessions")
    async def listed(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 500,
        offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
        q: Annotated[str, Query(max_length=200)] = "",
    ) -> dict[str, Any]:
        """The newest activity first; `q` searches the titles."""
        return await sessions_of(request).listed(q, limit, offset)

    @app.post("/sessions")
    async def create(request: Request) -> dict[str, Any]:
        return await sessions_of(request).create()

    @app.get("/sessions/{session_id}")
    async def shown(request: Request, session_id: str) -> dict[str, Any]:
        return await sessions_of(request).shown(session_id)

    @app.patch("/sessions/{session_id}", openapi_extra=openapi.body(Names))
    async def rename(request: Request, session_id: str) -> dict[str, Any]:
        changes = await read(request, Names)
        return await sessions_of(request).rename(session_id, changes.model_dump(exclude_none=True))

    @app.delete("/sessions/{session_id}")
    async def delete(request: Request, session_id: str, hard: bool = False) -> dict[str, Any]:
        """Hide a session, or with `hard` erase every row of it; its run is stopped, what waits is withdrawn."""
        return await sessions_of(request).removal.delete(session_id, hard=hard)

    @app.get("/sessions/{session_id}/history")
    async def history(request: Request, session_id: str) -> dict[str, Any]:
        return await sessions_of(request).history(session_id)

    @app.get("/sessions/{session_id}/pending-approvals")
    async def pending(request: Request, session_id: str) -> dict[str, Any]:
        return await sessions_of(request).pending_approvals(session_id)

    @app.get("/sessions/{session_id}/audit")
    async def audited(request: Request, session_id: str, results: bool = False) -> Response:
        """Who decided what, oldest first; `Accept: application/x-ndjson` gives a line for each entry.

        With `results`, a line for each result follows: `python -m cli verify` checks such a file.
        """
        found = await sessions_of(request).audit(session_id)
        if "application/x-ndjson" in request.headers.get("accept", ""):
            told = found["entries"]
            if results:
                told = [{"session_id": session_id, **each} for each in [*told, *found["results"]]]
            lines = (bytes(ASCIIResponse(each).body) + b"\n" for each in told)
            return Response(b"".join(lines), media_type="application/x-ndjson")
        return ASCIIResponse(found)


def sessions_of(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions
