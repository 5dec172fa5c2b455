"""The route that explains the routing of a request."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from api import openapi
from api.bodies import read_body
from api.dependencies import routing_cache_of, settings_of
from graph import wire
from graph.routing.classifier import peek_cached_choice
from graph.routing.words import explain_scores
from prompts import select_team


class RoutingRequest(wire.Incoming):
    """A request of a user whose routing is explained."""

    text: wire.UserText = Field(min_length=1)


router = APIRouter()


@router.post("/route/explain", openapi_extra=openapi.request_body(RoutingRequest))
async def explain_routing(request: Request) -> dict[str, Any]:
    """Return the agent that the keywords choose for a request, and the reasons. No model is called, nothing is stored.

    In a run the model chooses first, and may choose another agent: `remembered` is its choice, if it is in the cache.
    """
    text = (await read_body(request, RoutingRequest)).text
    agents, cache = select_team(settings_of(request).multi_agent_mode), routing_cache_of(request)
    choice = peek_cached_choice(text, agents, cache)
    return {**explain_scores(text, agents), "remembered": choice and choice._asdict(), "cache": cache.get_stats()}
