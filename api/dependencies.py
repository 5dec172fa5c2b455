"""The objects that routes take from the state of the app; the lifespan puts them there."""

from fastapi import Request

from sessions.runs.service import Runs
from sessions.service import Sessions
from sessions.store.database import Database


def sessions_of(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def runs_of(request: Request) -> Runs:
    runs: Runs = request.app.state.runs
    return runs


def database_of(request: Request) -> Database:
    database: Database = request.app.state.database
    return database
