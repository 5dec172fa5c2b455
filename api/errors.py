"""Answer the exceptions of routes with a status and a JSON body."""

import logging
import re

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from api.bodies import ASCIIResponse, describe_faults
from graph import wire
from graph.db.retry import DATABASE_ERRORS, DATABASE_UNAVAILABLE, RETRY_AFTER
from graph.errors import AgentRuntimeError, GraphUnavailable, Interrupted, SessionBusy
from sessions.lookup import SessionNotFound
from sessions.rewind import NoSuchTurn, NothingToUndo
from sessions.service import GrantNotFound

log = logging.getLogger("agent_runtime")


def add_error_handlers(app: FastAPI) -> None:
    """Register a handler for each exception that a route may raise."""
    app.add_exception_handler(SessionNotFound, _respond_session_not_found)
    app.add_exception_handler(GrantNotFound, _respond_grant_not_found)
    app.add_exception_handler(SessionBusy, _respond_conflict)
    app.add_exception_handler(NothingToUndo, _respond_conflict)
    app.add_exception_handler(NoSuchTurn, _respond_no_such_turn)
    app.add_exception_handler(GraphUnavailable, _respond_unavailable)
    app.add_exception_handler(Interrupted, _respond_unavailable)
    app.add_exception_handler(RequestValidationError, _respond_invalid_request)
    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, _respond_database_failed)


async def _respond_session_not_found(request: Request, error: Exception) -> Response:
    """Answer 404; the text repeats only an id that a session can have."""
    is_valid = re.fullmatch(wire.ID_PATTERN, request.path_params["session_id"])
    return ASCIIResponse({"error": str(error) if is_valid else "Session not found"}, 404)


async def _respond_grant_not_found(_: Request, error: Exception) -> Response:
    return ASCIIResponse({"error": str(error)}, 404)


async def _respond_conflict(_: Request, error: Exception) -> Response:
    assert isinstance(error, AgentRuntimeError)
    return ASCIIResponse({"error": str(error), "code": error.code}, 409)


async def _respond_no_such_turn(_: Request, error: Exception) -> Response:
    assert isinstance(error, NoSuchTurn)
    return ASCIIResponse({"detail": str(error), "code": error.code}, 422)


async def _respond_unavailable(_: Request, error: Exception) -> Response:
    return ASCIIResponse({"detail": str(error)}, 503, {"Retry-After": RETRY_AFTER})


async def _respond_database_failed(_: Request, error: Exception) -> Response:
    log.error("the database failed (%s); the client may retry in %s s", type(error).__name__, RETRY_AFTER)
    return ASCIIResponse({"detail": DATABASE_UNAVAILABLE}, 503, {"Retry-After": RETRY_AFTER})


async def _respond_invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return ASCIIResponse({"detail": describe_faults(error.errors())}, 422)
