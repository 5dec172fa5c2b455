"""Routes of the permission policy."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from api import openapi
from api.bodies import read
from api.dependencies import gatekeeper_of
from graph import wire
from graph.permissions.gatekeeper import explained
from prompts import AgentName


class Question(wire.Incoming):
    """A tool call whose verdict is requested."""

    agent: AgentName
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)


router = APIRouter()


@router.get("/policy")
async def policy(request: Request) -> dict[str, Any]:
    """Return the rules, and the decision for each agent and tool."""
    gatekeeper = gatekeeper_of(request)
    return {**gatekeeper.policy.model_dump(mode="json"), "matrix": gatekeeper.matrix()}


@router.post("/policy/explain", openapi_extra=openapi.body(Question))
async def explain(request: Request) -> dict[str, Any]:
    """Return the verdict on a tool call; nothing is run or stored."""
    question = await read(request, Question)
    return explained(gatekeeper_of(request).verdict(question.agent, question.tool, question.arguments))
