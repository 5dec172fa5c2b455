"""The objects that routes take from the state of the app; `server.create_app` puts them there."""

from fastapi import Request

from graph.permissions.gatekeeper import Gatekeeper
from graph.routing.cache import RoutingCache
from graph.settings import Settings
from sessions.runs.service import Runs
from sessions.service import Sessions
from sessions.store.database import Database


def settings_of(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def gatekeeper_of(request: Request) -> Gatekeeper:
    gatekeeper: Gatekeeper = request.app.state.gatekeeper
    return gatekeeper


def routing_cache_of(request: Request) -> RoutingCache:
    cache: RoutingCache = request.app.state.routing_cache
    return cache


def database_of(request: Request) -> Database:
    """Return the database; it is there while the lifespan runs."""
    database: Database = request.app.state.database
    return database


def runs_of(request: Request) -> Runs:
    """Return the runs; they are there while the lifespan runs."""
    runs: Runs = request.app.state.runs
    return runs


def sessions_of(request: Request) -> Sessions:
    """Return the sessions; they are there while the lifespan runs."""
    sessions: Sessions = request.app.state.sessions
    return sessions
