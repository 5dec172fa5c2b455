"""Judge a tool call: refuse it, require an approval, or allow it.

A call must be well-formed, its agent must be permitted to make it, and the policy decides on the rest.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

from langchain_core.messages import ToolCall as RequestedCall
from typing_extensions import TypedDict

from graph.errors import EditRefused, InvalidDecision
from graph.tools.catalog import CONTINUE_TOOL, TOOLS, TURN_ENDING_TOOLS, complete_arguments, validation_error
from graph.tools.coercion import coerce_arguments, resolve_tool_name
from policy import (
    DEFAULT_POLICY_FILE,
    PATH_ARGUMENTS,
    WRITE_TOOLS,
    Decision,
    Policy,
    Rule,
    Verdict,
    evaluate_policy,
    load_policy,
)
from prompts import AGENTS, CLASSIFIER, ORCHESTRATOR, Agent

log = logging.getLogger("agent_runtime.policy")
INVALID_ARGUMENTS_RULE = "arguments.invalid"
USER_REJECTED_RULE = "user.rejected"
"""The rule that refuses a call which the user rejected earlier in the same turn."""


class VerdictInfo(TypedDict):
    """A verdict as clients and the command line show it."""

    decision: Decision
    rule: str
    reason: str
    warning: NotRequired[str]


class CallOutcome(TypedDict):
    """A possible outcome of a call, and the conditions under which it applies. Without a condition it always does."""

    decision: Decision
    rule: str
    paths: NotRequired[list[str]]
    """The globs of paths that the rule is for."""
    paths_but: NotRequired[list[str]]
    """The globs of paths that the rule is not for."""
    commands: NotRequired[list[str]]
    """The classes of commands that the rule is for."""
    commands_but: NotRequired[list[str]]
    """The classes of commands that the rule is not for."""


def all_agents() -> dict[str, Agent]:
    return {ORCHESTRATOR: CLASSIFIER, **AGENTS}


class Gatekeeper:
    """The judge, with the policy of a file. Raises ValueError with file and line if the policy cannot be used."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path or DEFAULT_POLICY_FILE)
        self.policy = self._load_policy()
        self.unasked: Counter[str] = Counter()
        """The calls that passed unasked since the process started, by rule."""

    def _load_policy(self) -> Policy:
        policy = load_policy(self.path, TOOLS, all_agents(), PATH_ARGUMENTS)
        if not policy.enabled:
            log.critical("APPROVAL IS OFF: %s has enabled: false, so no call requires an approval", self.path)
        return policy

    def reload(self) -> None:
        """Read the file again. If it cannot be used, log the error and keep the present policy."""
        try:
            self.policy = self._load_policy()
        except ValueError as error:
            log.error("the policy was not changed: %s", error)
        else:
            log.warning("the policy was loaded again from %s", self.path)

    def evaluate_call(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> Verdict:
        """Return the verdict on any call of a known agent."""
        if fault := validation_error(tool, dict(arguments)):
            return Verdict("deny", INVALID_ARGUMENTS_RULE, fault)
        return evaluate_policy(
            self.policy, all_agents()[agent], tool, {k: v for k, v in arguments.items() if v is not None}
        )

    def explain_call(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> Verdict:
        """Return the verdict on a call as a model writes it: its values are read in the types that the tool wants."""
        name = resolve_tool_name(tool)
        return self.evaluate_call(agent, name, coerce_arguments(name, dict(arguments)))

    def apply_edit(
        self, agent: str, tool: str, arguments: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the arguments with the user's changes. Raises EditRefused if the gate refuses the result.

        A change must have its exact type: it is stored and executed as the user sent it.
        """
        if tool == CONTINUE_TOOL:
            raise EditRefused("This can only be approved or rejected; it is still open.")
        result = complete_arguments(tool, {**arguments, **changes})
        ruling = self.evaluate_call(agent, tool, result)
        if ruling.decision == "deny":
            raise EditRefused(f"The edit was refused, the approval is still open. {ruling.reason}")
        return result

    def require_allowed(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> None:
        """Check an approval against the present policy, which may have changed since the approval was requested.

        Raises InvalidDecision if the policy denies the call now.
        """
        if tool == CONTINUE_TOOL:
            return
        ruling = self.evaluate_call(agent, tool, arguments)
        if ruling.decision == "deny":
            raise InvalidDecision(f"The call cannot be approved any more; reject it. {ruling.reason}")

    def is_mutating(self, agent: str, call: RequestedCall) -> bool:
        """Return whether a call may change something."""
        return self.evaluate_call(agent, call["name"], call["args"]).is_mutating

    def needs_approval(self, agent: str, call: RequestedCall) -> bool:
        """Return whether the user, or a grant, has to approve the call."""
        return agent in all_agents() and self.evaluate_call(agent, call["name"], call["args"]).decision == "ask"

    def ends_turn(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Return whether the call is auto-approved and ends the turn with an answer."""
        return tool in TURN_ENDING_TOOLS and self.evaluate_call(agent, tool, arguments).decision == "allow"

    def permission_matrix(self) -> dict[str, dict[str, list[CallOutcome]]]:
        """Return the possible outcomes of a call for each agent and tool, in the order in which they are checked."""
        return {
            name: {tool: self._list_outcomes(agent, tool) for tool in TOOLS} for name, agent in all_agents().items()
        }

    def _list_outcomes(self, agent: Agent, tool: str) -> list[CallOutcome]:
        if tool not in agent.tools:
            return [{"decision": "deny", "rule": "agent.tool"}]
        outcomes = [_describe_rule(rule) for rule in self.policy.find_deciding_rules(agent.name, tool)]
        if tool in WRITE_TOOLS and agent.may_write != ("*",):
            outcomes.insert(0, {"decision": "deny", "rule": "agent.may_write", "paths_but": list(agent.may_write)})
        if tool == "execute_command" and agent.read_only_commands:
            outcomes.insert(0, {"decision": "ask", "rule": "agent.read_only_commands", "commands_but": ["read_only"]})
        return outcomes


def _describe_rule(rule: Rule) -> CallOutcome:
    outcome = CallOutcome(decision=rule.decision, rule=rule.id)
    if rule.paths is not None:
        outcome["paths"] = rule.paths
    if rule.commands is not None:
        outcome["commands"] = [*rule.commands]
    return outcome


def verdict_to_json(verdict: Verdict) -> VerdictInfo:
    info = VerdictInfo(decision=verdict.decision, rule=verdict.rule, reason=verdict.reason)
    if verdict.warning:
        info["warning"] = verdict.warning
    return info
