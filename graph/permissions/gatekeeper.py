"""The gate's judgement of a call: is it well-formed, may this agent do it, must a human agree?"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from langchain_core.messages import ToolCall as RequestedCall

from graph.errors import EditRefused, InvalidDecision
from graph.tools.catalog import CONTINUE, ENDS_TURN, TOOLS, mistake
from policy import DEFAULT, PATHS, WRITES, Policy, Rule, Verdict, judge, load
from policy.grants import Grant
from prompts import AGENTS, CLASSIFIER, ORCHESTRATOR, Agent

log = logging.getLogger("agent_runtime.policy")
MALFORMED = "arguments.invalid"
REPEATED = "user.rejected"
"""The rule that refuses a call which the user rejected in the same turn."""


def known_agents() -> dict[str, Agent]:
    return {ORCHESTRATOR: CLASSIFIER, **AGENTS}


class Gatekeeper:
    """Judges by the policy of a file. Raises ValueError, naming file and line, if it cannot be used."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path or DEFAULT)
        self.policy = self._read()

    def _read(self) -> Policy:
        policy = load(self.path, TOOLS, known_agents(), PATHS)
        if not policy.enabled:
            log.critical("APPROVAL IS OFF: %s says enabled: false; nothing asks its user any more", self.path)
        return policy

    def reload(self) -> None:
        """Reads the file anew; what cannot be used is told in the log, and the policy stays as it is."""
        try:
            self.policy = self._read()
        except ValueError as error:
            log.error("the policy is kept as it was: %s", error)
        else:
            log.warning("the policy was read anew from %s", self.path)

    def verdict(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> Verdict:
        """Decides on any call; `agent` must be known."""
        if wrong := mistake(tool, dict(arguments)):
            return Verdict("deny", MALFORMED, wrong)
        return judge(self.policy, known_agents()[agent], tool, {k: v for k, v in arguments.items() if v is not None})

    def edited(self, agent: str, tool: str, arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with the user's changes. Raises EditRefused if the gate does not let them through."""
        if tool == CONTINUE:
            raise EditRefused("This can only be approved or rejected; it is still open.")
        result = {**arguments, **changes}
        ruling = self.verdict(agent, tool, result)
        if ruling.decision == "deny":
            raise EditRefused(f"The edit was refused, the approval is still open. {ruling.reason}")
        return result

    def still_possible(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> None:
        """Raises InvalidDecision if the policy, read anew since the user was asked, denies the call by now."""
        if tool == CONTINUE:
            return
        ruling = self.verdict(agent, tool, arguments)
        if ruling.decision == "deny":
            raise InvalidDecision(f"The call cannot be approved any more; reject it. {ruling.reason}")

    def changes(self, agent: str, call: RequestedCall) -> bool:
        """Whether a call may change something."""
        return self.verdict(agent, call["name"], call["args"]).dangerous

    def ends_turn(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Whether the call passes unasked, and ends the turn with an answer."""
        return tool in ENDS_TURN and self.verdict(agent, tool, arguments).decision == "allow"

    def matrix(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """For each agent and tool what may come of a call, in the order it is looked at."""
        return {name: {tool: self._outcomes(agent, tool) for tool in TOOLS} for name, agent in known_agents().items()}

    def _outcomes(self, agent: Agent, tool: str) -> list[dict[str, Any]]:
        if tool not in agent.tools:
            return [{"decision": "deny", "rule": "agent.tool"}]
        found = [_outcome(rule) for rule in self.policy.rules_for(agent.name, tool)]
        if tool in WRITES and agent.may_write != ("*",):
            found.insert(0, {"decision": "deny", "rule": "agent.may_write", "paths_but": list(agent.may_write)})
        if tool == "execute_command" and agent.read_only_commands:
            forced = {"decision": "ask", "rule": "agent.read_only_commands", "commands_but": ["read_only"]}
            found.insert(0, forced)
        return found


def _outcome(rule: Rule) -> dict[str, Any]:
    said = {"decision": rule.decision, "rule": rule.id, "paths": rule.paths, "commands": rule.commands}
    return {name: value for name, value in said.items() if value is not None}


def explained(verdict: Verdict) -> dict[str, Any]:
    """As clients and the command line show it."""
    said = {"decision": verdict.decision, "rule": verdict.rule, "reason": verdict.reason}
    return {**said, "warning": verdict.warning} if verdict.warning else said


GRANTS: ContextVar[Callable[[], Awaitable[list[Grant]]] | None] = ContextVar("GRANTS", default=None)
"""Asks for what the user of the session at work has allowed in advance; none in Studio."""


async def standing_grants() -> list[Grant]:
    ask = GRANTS.get()
    return await ask() if ask else []
