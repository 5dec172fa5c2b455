"""The routes, with a module for each resource."""

from fastapi import APIRouter

from api.routes import agents, grants, health, messages, policy, rewind, routing, sessions, views

ROUTERS: list[APIRouter] = [
    health.router,
    messages.router,
    agents.router,
    policy.router,
    sessions.router,
    grants.router,
    views.router,
    rewind.router,
    routing.router,
]
"""The order of the OpenAPI page."""
