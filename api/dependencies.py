"""The objects that routes take from the state of the app; `server.create_app` puts them there."""

from fastapi import Request

from graph.permissions.gatekeeper import Gatekeeper
from graph.routing.cache import RoutingCache
from graph.settings import Settings
from sessions.deps import Deps


def settings_of(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def gatekeeper_of(request: Request) -> Gatekeeper:
    gatekeeper: Gatekeeper = request.app.state.gatekeeper
    return gatekeeper


def routing_cache_of(request: Request) -> RoutingCache:
    cache: RoutingCache = request.app.state.routing_cache
    return cache


def deps_of(request: Request) -> Deps:
    """Return what the functions of `sessions` need; it is there while the lifespan runs."""
    deps: Deps = request.app.state.deps
    return deps
