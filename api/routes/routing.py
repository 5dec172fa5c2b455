"""The REST call that asks how a request would be routed."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from api import openapi
from api.bodies import read_body
from api.dependencies import routing_cache_of, settings_of
from graph import wire
from graph.routing.classifier import explain_scores, peek_cached_choice
from prompts import select_team


class RoutingRequest(wire.Incoming):
    """A request whose routing is asked for."""

    text: wire.UserText = Field(min_length=1)


router = APIRouter()


@router.post("/route/explain", openapi_extra=openapi.request_body(RoutingRequest))
async def explain_routing(request: Request) -> dict[str, Any]:
    """Whom the words of a request speak for, and why; no model is asked, nothing is run or stored.

    A model, which is asked first, may choose another one: `remembered` is what it chose if this process knows it.
    """
    asked = await read_body(request, RoutingRequest)
    agents, cache = select_team(settings_of(request).multi_agent_mode), routing_cache_of(request)
    before = peek_cached_choice(asked.text, agents, cache)
    return {**explain_scores(asked.text, agents), "remembered": before and before._asdict(), "cache": cache.get_stats()}
