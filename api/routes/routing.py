"""The REST call that asks how a request would be routed."""

from typing import Any

from fastapi import FastAPI, Request
from pydantic import Field

from api import openapi
from api.bodies import read
from graph import wire
from graph.routing.cache import Classifications
from graph.routing.classifier import explanation, remembered
from graph.settings import Settings
from prompts import team


class Asked(wire.Incoming):
    """A request whose routing is asked for."""

    text: wire.UserText = Field(min_length=1)


def add_routing_routes(app: FastAPI, settings: Settings, known: Classifications) -> None:
    mates = team(settings.multi_agent_mode)

    @app.post("/route/explain", openapi_extra=openapi.body(Asked))
    async def explain(request: Request) -> dict[str, Any]:
        """Whom the words of a request speak for, and why; no model is asked, nothing is run or stored.

        A model, which is asked first, may choose another one: `remembered` is what it chose if this process knows it.
        """
        asked = await read(request, Asked)
        before = remembered(asked.text, mates, known)
        return {**explanation(asked.text, mates), "remembered": before and before._asdict(), "cache": known.told()}
