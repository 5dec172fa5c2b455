"""The REST call that asks how a request would be routed."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from api import openapi
from api.bodies import read
from api.dependencies import routing_cache_of, settings_of
from graph import wire
from graph.routing.classifier import explanation, remembered
from prompts import team


class Asked(wire.Incoming):
    """A request whose routing is asked for."""

    text: wire.UserText = Field(min_length=1)


router = APIRouter()


@router.post("/route/explain", openapi_extra=openapi.body(Asked))
async def explain(request: Request) -> dict[str, Any]:
    """Whom the words of a request speak for, and why; no model is asked, nothing is run or stored.

    A model, which is asked first, may choose another one: `remembered` is what it chose if this process knows it.
    """
    asked = await read(request, Asked)
    agents, cache = team(settings_of(request).multi_agent_mode), routing_cache_of(request)
    before = remembered(asked.text, agents, cache)
    return {**explanation(asked.text, agents), "remembered": before and before._asdict(), "cache": cache.told()}
