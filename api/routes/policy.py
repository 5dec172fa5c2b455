"""Routes of the permission policy."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from api import openapi
from api.bodies import read_body
from api.dependencies import gatekeeper_of
from graph import wire
from graph.permissions.gatekeeper import VerdictInfo, verdict_to_json
from prompts import AgentName


class VerdictRequest(wire.Incoming):
    """A tool call whose verdict is requested."""

    agent: AgentName
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)


router = APIRouter()


@router.get("/policy")
async def get_policy(request: Request) -> dict[str, Any]:
    """Return the rules, the decision for each agent and tool, and how many calls passed unasked, by rule."""
    gatekeeper = gatekeeper_of(request)
    rules = gatekeeper.policy.model_dump(mode="json")
    return {**rules, "matrix": gatekeeper.permission_matrix(), "unasked": dict(gatekeeper.unasked)}


@router.post("/policy/explain", openapi_extra=openapi.request_body(VerdictRequest))
async def explain_verdict(request: Request) -> VerdictInfo:
    """Return the verdict on a tool call; nothing is run or stored."""
    call = await read_body(request, VerdictRequest)
    return verdict_to_json(gatekeeper_of(request).explain_call(call.agent, call.tool, call.arguments))
