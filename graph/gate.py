"""The gate's judgement of a call: is it well-formed, may this agent do it, must a human agree? Pure."""

from collections.abc import Mapping
from typing import Any

from graph.errors import EditRefused
from graph.tools import ENDS_TURN, mistake
from policy import Verdict, judge
from prompts import AGENTS, CLASSIFIER, ORCHESTRATOR, Agent

MALFORMED = "arguments.invalid"


def known_agents() -> dict[str, Agent]:
    return {ORCHESTRATOR: CLASSIFIER, **AGENTS}


def verdict(agent: str, tool: str, arguments: Mapping[str, Any]) -> Verdict:
    """Decides on any call; `agent` must be known."""
    if wrong := mistake(tool, dict(arguments)):
        return Verdict("deny", MALFORMED, wrong)
    return judge(known_agents()[agent], tool, {k: v for k, v in arguments.items() if v is not None})


def edited(agent: str, tool: str, arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with the user's changes. Raises EditRefused if the gate does not let them through."""
    result = {**arguments, **changes}
    ruling = verdict(agent, tool, result)
    if ruling.decision == "deny":
        raise EditRefused(f"The edit was refused, the approval is still open. {ruling.reason}")
    return result


def ends_turn(agent: str, tool: str, arguments: Mapping[str, Any]) -> bool:
    """Whether the call passes, and ends the turn with an answer."""
    return tool in ENDS_TURN and verdict(agent, tool, arguments).decision == "allow"
