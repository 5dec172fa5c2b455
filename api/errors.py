"""Answer exceptions with a status and a JSON body."""

import logging
import re

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from api.bodies import ASCIIResponse, told
from graph import wire
from graph.db.retry import DATABASE_ERRORS, NOT_THERE, RETRY_AFTER
from graph.errors import AgentRuntimeError, GraphUnavailable, Interrupted, SessionBusy
from sessions.lookup import SessionNotFound
from sessions.rewind import NoSuchTurn, NothingToUndo
from sessions.service import GrantNotFound

log = logging.getLogger("agent_runtime")


def add_error_handlers(app: FastAPI) -> None:
    """Register a handler for each exception that a route may raise."""
    app.add_exception_handler(SessionNotFound, _session_not_found)
    app.add_exception_handler(GrantNotFound, _grant_not_found)
    app.add_exception_handler(SessionBusy, _conflict)
    app.add_exception_handler(NothingToUndo, _conflict)
    app.add_exception_handler(NoSuchTurn, _no_such_turn)
    app.add_exception_handler(GraphUnavailable, _unavailable)
    app.add_exception_handler(Interrupted, _unavailable)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, _database_failed)


async def _session_not_found(request: Request, error: Exception) -> Response:
    """Answer 404; an id that no session can have is not repeated."""
    is_valid = re.fullmatch(wire.ID, request.path_params["session_id"])
    return ASCIIResponse({"error": str(error) if is_valid else "Session not found"}, 404)


async def _grant_not_found(_: Request, error: Exception) -> Response:
    return ASCIIResponse({"error": str(error)}, 404)


async def _conflict(_: Request, error: Exception) -> Response:
    assert isinstance(error, AgentRuntimeError)
    return ASCIIResponse({"error": str(error), "code": error.code}, 409)


async def _no_such_turn(_: Request, error: Exception) -> Response:
    assert isinstance(error, NoSuchTurn)
    return ASCIIResponse({"detail": str(error), "code": error.code}, 422)


async def _unavailable(_: Request, error: Exception) -> Response:
    return ASCIIResponse({"detail": str(error)}, 503, {"Retry-After": RETRY_AFTER})


async def _database_failed(_: Request, error: Exception) -> Response:
    log.error("the database failed: %s", type(error).__name__)
    return ASCIIResponse({"detail": NOT_THERE}, 503, {"Retry-After": RETRY_AFTER})


async def _invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return ASCIIResponse({"detail": told(error.errors())}, 422)
