"""The gate's judgement of a call: is it well-formed, may this agent do it, must a human agree?"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_core.messages import ToolCall as RequestedCall

from graph.errors import EditRefused, InvalidDecision
from graph.tools.catalog import CONTINUE_TOOL, TOOLS, TURN_ENDING_TOOLS, validation_error
from policy import DEFAULT_POLICY_FILE, PATH_ARGUMENTS, WRITE_TOOLS, Policy, Rule, Verdict, evaluate_policy, load_policy
from prompts import AGENTS, CLASSIFIER, ORCHESTRATOR, Agent

log = logging.getLogger("agent_runtime.policy")
INVALID_ARGUMENTS_RULE = "arguments.invalid"
USER_REJECTED_RULE = "user.rejected"
"""The rule that refuses a call which the user rejected in the same turn."""


def all_agents() -> dict[str, Agent]:
    return {ORCHESTRATOR: CLASSIFIER, **AGENTS}


class Gatekeeper:
    """Judges by the policy of a file. Raises ValueError, naming file and line, if it cannot be used."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path or DEFAULT_POLICY_FILE)
        self.policy = self._load_policy()

    def _load_policy(self) -> Policy:
        policy = load_policy(self.path, TOOLS, all_agents(), PATH_ARGUMENTS)
        if not policy.enabled:
            log.critical("APPROVAL IS OFF: %s says enabled: false; nothing asks its user any more", self.path)
        return policy

    def reload(self) -> None:
        """Reads the file anew; what cannot be used is told in the log, and the policy stays as it is."""
        try:
            self.policy = self._load_policy()
        except ValueError as error:
            log.error("the policy is kept as it was: %s", error)
        else:
            log.warning("the policy was read anew from %s", self.path)

    def evaluate_call(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> Verdict:
        """Decides on any call; `agent` must be known."""
        if wrong := validation_error(tool, dict(arguments)):
            return Verdict("deny", INVALID_ARGUMENTS_RULE, wrong)
        return evaluate_policy(
            self.policy, all_agents()[agent], tool, {k: v for k, v in arguments.items() if v is not None}
        )

    def apply_edit(
        self, agent: str, tool: str, arguments: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The arguments with the user's changes. Raises EditRefused if the gate does not let them through."""
        if tool == CONTINUE_TOOL:
            raise EditRefused("This can only be approved or rejected; it is still open.")
        result = {**arguments, **changes}
        ruling = self.evaluate_call(agent, tool, result)
        if ruling.decision == "deny":
            raise EditRefused(f"The edit was refused, the approval is still open. {ruling.reason}")
        return result

    def require_allowed(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> None:
        """Raises InvalidDecision if the policy, read anew since the user was asked, denies the call by now."""
        if tool == CONTINUE_TOOL:
            return
        ruling = self.evaluate_call(agent, tool, arguments)
        if ruling.decision == "deny":
            raise InvalidDecision(f"The call cannot be approved any more; reject it. {ruling.reason}")

    def is_mutating(self, agent: str, call: RequestedCall) -> bool:
        """Whether a call may change something."""
        return self.evaluate_call(agent, call["name"], call["args"]).is_mutating

    def ends_turn(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Whether the call passes unasked, and ends the turn with an answer."""
        return tool in TURN_ENDING_TOOLS and self.evaluate_call(agent, tool, arguments).decision == "allow"

    def permission_matrix(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """For each agent and tool what may come of a call, in the order it is looked at."""
        return {
            name: {tool: self._list_outcomes(agent, tool) for tool in TOOLS} for name, agent in all_agents().items()
        }

    def _list_outcomes(self, agent: Agent, tool: str) -> list[dict[str, Any]]:
        if tool not in agent.tools:
            return [{"decision": "deny", "rule": "agent.tool"}]
        found = [_describe_rule(rule) for rule in self.policy.find_deciding_rules(agent.name, tool)]
        if tool in WRITE_TOOLS and agent.may_write != ("*",):
            found.insert(0, {"decision": "deny", "rule": "agent.may_write", "paths_but": list(agent.may_write)})
        if tool == "execute_command" and agent.read_only_commands:
            forced = {"decision": "ask", "rule": "agent.read_only_commands", "commands_but": ["read_only"]}
            found.insert(0, forced)
        return found


def _describe_rule(rule: Rule) -> dict[str, Any]:
    said = {"decision": rule.decision, "rule": rule.id, "paths": rule.paths, "commands": rule.commands}
    return {name: value for name, value in said.items() if value is not None}


def verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    """As clients and the command line show it."""
    said = {"decision": verdict.decision, "rule": verdict.rule, "reason": verdict.reason}
    return {**said, "warning": verdict.warning} if verdict.warning else said
