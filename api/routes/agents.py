"""Routes of the agents."""

from typing import Any

from fastapi import APIRouter, Request

from api.dependencies import deps_of, settings_of
from prompts import CLASSIFIER, select_team
from sessions import service
from sessions.shapes import CurrentAgent, Json

router = APIRouter()


@router.get("/agents")
async def list_agents(request: Request) -> list[dict[str, Any]]:
    """List the agents of this mode."""
    return [
        {
            "type": agent.name,
            "name": agent.title,
            "description": agent.description,
            "allowed_tools": list(agent.tools),
            "has_file_restrictions": agent.may_write != ("*",),
        }
        for agent in [CLASSIFIER, *select_team(settings_of(request).multi_agent_mode).values()]
    ]


@router.get("/agents/{session_id}/current", response_model=Json)
async def get_current_agent(request: Request, session_id: str) -> CurrentAgent:
    """Return the agent that holds the conversation, and the earlier hand-offs."""
    return await service.get_current_agent(deps_of(request), session_id)
