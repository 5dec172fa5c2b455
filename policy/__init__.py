"""Decide whether an agent may make a call, and whether the user must approve it.

Pure functions over rules as data; nothing here runs anything. A call that is not proven harmless requires approval. A
call that the agent may not make is denied, and so is a call that no rule knows.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

from policy.commands import CommandClass, CommandClassification, classify_command
from policy.path_index import list_paths
from policy.path_rules import find_restriction
from policy.paths import find_argument_error, find_path_error
from policy.patterns import find_pattern_error
from policy.rules import DEFAULT_POLICY_FILE, Decision, Policy, PolicyInput, Rule, load_policy

__all__ = [
    "DEFAULT_POLICY_FILE",
    "PATH_ARGUMENTS",
    "WRITE_TOOLS",
    "AgentPermissions",
    "CommandClass",
    "Decision",
    "Policy",
    "Rule",
    "Verdict",
]
__all__ += ["evaluate_policy", "load_policy"]


class Verdict(NamedTuple):
    """The decision on one call."""

    decision: Decision
    rule: str
    """The stable id of the rule that decided."""
    reason: str
    """A sentence for the user. The model reads it too if the call is denied."""
    is_mutating: bool = False
    """True if the call may change something. If it is auto-approved, the audit records it."""
    always_asks: bool = False
    """True if no grant may approve the call in the user's place."""
    is_protected: bool = False
    """True if a grant covers the call only if all its arguments are the same: a rule or a warning is about its path."""
    warning: str | None = None
    """A sentence about the path that the call changes, if the policy warns of it."""


class AgentPermissions(Protocol):
    """The part of an agent's file that the policy reads."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def tools(self) -> Sequence[str]: ...
    @property
    def may_write(self) -> Sequence[str]: ...
    @property
    def read_only_commands(self) -> bool: ...


PATH_ARGUMENTS = dict.fromkeys(("read_file", "write_file", "list_files", "create_directory", "search_in_code"), "path")
"""The argument of each tool that must name something inside the workspace."""

PATTERN_ARGUMENTS = {"list_files": "pattern", "search_in_code": "file_pattern"}
"""The argument of each tool that is a glob of names inside the workspace."""

WRITE_TOOLS = {"write_file", "create_directory"}
"""The tools that change the path they name."""

MAX_QUOTED_CHARACTERS = 200
"""Characters of a path that a reason quotes. It keeps the sentence readable; chosen, not measured."""


def evaluate_policy(policy: Policy, agent: AgentPermissions, tool: str, arguments: Mapping[str, Any]) -> Verdict:
    """Return the verdict on a call. Its arguments must fit the tool's schema.

    The limits of the agent and of the workspace come first. No rule can extend them.
    """
    return _find_denial(agent, tool, arguments) or _apply_rules(policy, agent, tool, arguments)


def _find_denial(agent: AgentPermissions, tool: str, arguments: Mapping[str, Any]) -> Verdict | None:
    title = agent.title.removesuffix(" Agent")
    if tool not in agent.tools:
        return Verdict("deny", "agent.tool", f"{title} may not use {tool}; it may use {', '.join(agent.tools)}.")
    path = arguments.get(PATH_ARGUMENTS.get(tool, ""))
    if path is not None and (error := find_argument_error(path)):
        return Verdict("deny", "path.outside", f"The path {_quote_ascii(path)} is refused: {error}.")
    pattern = arguments.get(PATTERN_ARGUMENTS.get(tool, ""))
    if pattern is not None and (error := find_pattern_error(pattern)):
        return Verdict("deny", "pattern.outside", f"The pattern {_quote_ascii(pattern)} is refused: {error}.")
    if tool in WRITE_TOOLS and agent.may_write != ("*",) and not _may_write(str(path), agent.may_write):
        globs = ", ".join(agent.may_write)
        return Verdict(
            "deny", "agent.may_write", f"{title} may write only {globs} files; {_quote_ascii(path)} is not one."
        )
    return None


def _apply_rules(policy: Policy, agent: AgentPermissions, tool: str, arguments: Mapping[str, Any]) -> Verdict:
    command = classify_command(arguments) if tool == "execute_command" else None
    path = arguments.get("path", ".") if tool in PATH_ARGUMENTS else None
    rule = policy.find_rule(PolicyInput(agent=agent.name, tool=tool, path=path, command=command and command.kind))
    verdict = Verdict(rule.decision, rule.id, rule.reason, is_mutating=tool in WRITE_TOOLS)
    verdict = _apply_path_rules(verdict, policy, agent, tool, arguments)
    if verdict.decision == "deny":
        return verdict
    if command:
        verdict = _restrict_command(verdict, command, agent)
        verdict = _check_working_folder(verdict, arguments.get("cwd"))
    if verdict.decision == "ask" and not policy.enabled and not verdict.always_asks:
        return verdict._replace(decision="allow", rule="approval.off", reason="The policy has switched approvals off.")
    if verdict.decision != "ask":
        return verdict
    if command and command.kind is CommandClass.UNPROVEN:
        return _protect_paths(verdict, policy, arguments)
    warning = policy.find_warning(path) if path else None
    return _add_warning(verdict, warning) if warning else verdict


def _protect_paths(verdict: Verdict, policy: Policy, arguments: Mapping[str, Any]) -> Verdict:
    """Protect a command that names a path, or a folder above one, which a rule or a warning is about."""
    paths = list_paths(str(arguments.get("command", "")), str(arguments.get("cwd") or "."))
    if found := policy.warning_index.find(paths):
        path, warning = found
        return _add_warning(verdict, f"The command names {_quote_ascii(path)}. {warning}")
    return verdict._replace(is_protected=True) if policy.rule_index.find(paths) else verdict


def _add_warning(verdict: Verdict, warning: str) -> Verdict:
    return verdict._replace(warning=warning, is_protected=True, reason=f"{verdict.reason} {warning}")


def _apply_path_rules(
    verdict: Verdict, policy: Policy, agent: AgentPermissions, tool: str, arguments: Mapping[str, Any]
) -> Verdict:
    """Tighten the verdict by the rules of the paths that a command or a search reaches; they never loosen it."""
    restriction = find_restriction(policy, agent.name, tool, arguments) if verdict.decision != "deny" else None
    if restriction is None:
        return verdict
    rule = restriction.rule
    if restriction.is_certain and rule.decision == "deny":
        return verdict._replace(decision="deny", rule=rule.id, reason=rule.reason)
    if verdict.decision == "ask":
        return verdict._replace(is_protected=True)  # the pattern of a grant says nothing about paths
    reason = rule.reason if restriction.is_certain else f"It may read files that a rule protects: {rule.reason}"
    return verdict._replace(decision="ask", rule=rule.id, reason=reason, is_protected=True)


def _restrict_command(verdict: Verdict, command: CommandClassification, agent: AgentPermissions) -> Verdict:
    if command.kind is CommandClass.READ_ONLY:
        return verdict
    verdict = verdict._replace(is_mutating=True)
    if verdict.decision != "deny" and agent.read_only_commands:
        reason = "The command is not proven read-only, so it needs the user's approval."
        verdict = verdict._replace(decision="ask", rule="agent.read_only_commands", reason=reason, always_asks=True)
    if verdict.decision == "ask" and command.why:
        return verdict._replace(reason=f"{verdict.reason} It is not proven, because {command.why}.")
    return verdict


def _check_working_folder(verdict: Verdict, cwd: object) -> Verdict:
    """Require approval if the folder is not proven to be inside the workspace, whatever else is allowed."""
    if cwd is None or verdict.decision == "deny" or verdict.always_asks or not (error := find_path_error(cwd)):
        return verdict
    reason = f"The command would run in {_quote_ascii(cwd)}: {error}. So it needs the user's approval."
    return verdict._replace(decision="ask", rule="path.cwd", reason=reason, always_asks=True)


def _may_write(path: str, globs: Sequence[str]) -> bool:
    whole = path.casefold()
    name = whole.rpartition("/")[2]
    return any(fnmatchcase(whole, glob.casefold()) or fnmatchcase(name, glob.casefold()) for glob in globs)


def _quote_ascii(text: object) -> str:
    """Return the text as an ASCII literal, so that none of its characters can deceive the reader."""
    return ascii(text if not isinstance(text, str) else text[:MAX_QUOTED_CHARACTERS])
