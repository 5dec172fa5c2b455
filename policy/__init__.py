"""May this agent do this, and must a human agree? Pure functions over rules as data; nothing here runs anything.

What is not proven harmless asks; what an agent may not do is refused; unknown means no.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

from policy.commands import CommandClass, CommandClassification, classify_command
from policy.paths import find_path_error, find_pattern_error
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
    decision: Decision
    rule: str
    """The stable id of the rule that decided."""
    reason: str
    """A sentence for the user, and for the model when it is refused."""
    is_mutating: bool = False
    """Whether it may change something; if it passes unasked, that is written into the audit."""
    always_asks: bool = False
    """Whether no grant may answer for the user."""
    warning: str | None = None
    """What the user should know about what it changes."""


class AgentPermissions(Protocol):
    """What is asked of an agent's file."""

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


def evaluate_policy(policy: Policy, agent: AgentPermissions, tool: str, arguments: Mapping[str, Any]) -> Verdict:
    """Of a call whose arguments fit the tool's schema."""
    return _find_denial(agent, tool, arguments) or _apply_rules(policy, agent, tool, arguments)


def _find_denial(agent: AgentPermissions, tool: str, arguments: Mapping[str, Any]) -> Verdict | None:
    who = agent.title.removesuffix(" Agent")
    if tool not in agent.tools:
        return Verdict("deny", "agent.tool", f"{who} may not use {tool}; it may use {', '.join(agent.tools)}.")
    path = arguments.get(PATH_ARGUMENTS.get(tool, ""))
    if path is not None and (wrong := find_path_error(path)):
        return Verdict("deny", "path.outside", f"The path {_quote_ascii(path)} is refused: {wrong}.")
    pattern = arguments.get(PATTERN_ARGUMENTS.get(tool, ""))
    if pattern is not None and (wrong := find_pattern_error(pattern)):
        return Verdict("deny", "pattern.outside", f"The pattern {_quote_ascii(pattern)} is refused: {wrong}.")
    if tool in WRITE_TOOLS and agent.may_write != ("*",) and not _may_write(str(path), agent.may_write):
        globs = ", ".join(agent.may_write)
        return Verdict(
            "deny", "agent.may_write", f"{who} may write only {globs} files; {_quote_ascii(path)} is not one."
        )
    return None


def _apply_rules(policy: Policy, agent: AgentPermissions, tool: str, arguments: Mapping[str, Any]) -> Verdict:
    reading = classify_command(arguments) if tool == "execute_command" else None
    path = arguments.get("path", ".") if tool in PATH_ARGUMENTS else None
    rule = policy.find_rule(PolicyInput(agent=agent.name, tool=tool, path=path, command=reading and reading.kind))
    verdict = Verdict(rule.decision, rule.id, rule.reason, is_mutating=tool in WRITE_TOOLS)
    if reading:
        verdict = _restrict_command(verdict, reading, agent)
        verdict = _check_working_folder(verdict, arguments.get("cwd"))
    if verdict.decision == "ask" and not policy.enabled and not verdict.always_asks:
        return verdict._replace(decision="allow", rule="approval.off", reason="The policy has switched approvals off.")
    warning = policy.find_warning(path) if path and verdict.decision == "ask" else None
    return verdict._replace(warning=warning, reason=f"{verdict.reason} {warning}") if warning else verdict


def _restrict_command(verdict: Verdict, reading: CommandClassification, agent: AgentPermissions) -> Verdict:
    if reading.kind is CommandClass.READ_ONLY:
        return verdict
    verdict = verdict._replace(is_mutating=True)
    if verdict.decision != "deny" and agent.read_only_commands:
        why = "The command is not proven read-only, so it needs the user's approval."
        verdict = verdict._replace(decision="ask", rule="agent.read_only_commands", reason=why, always_asks=True)
    if verdict.decision == "ask" and reading.why:
        return verdict._replace(reason=f"{verdict.reason} What is not known of it: {reading.why}.")
    return verdict


def _check_working_folder(verdict: Verdict, cwd: object) -> Verdict:
    """A folder that is not proven to be inside the workspace is asked for, whatever else is allowed."""
    if cwd is None or verdict.decision == "deny" or verdict.always_asks or not (wrong := find_path_error(cwd)):
        return verdict
    why = f"The command would run in {_quote_ascii(cwd)}: {wrong}. So it needs the user's approval."
    return verdict._replace(decision="ask", rule="path.cwd", reason=why, always_asks=True)


def _may_write(path: str, globs: Sequence[str]) -> bool:
    whole = path.casefold()
    name = whole.rpartition("/")[2]
    return any(fnmatchcase(whole, glob.casefold()) or fnmatchcase(name, glob.casefold()) for glob in globs)


def _quote_ascii(text: object) -> str:
    """As ASCII, so that no character of it plays a trick on who reads it."""
    return ascii(text if not isinstance(text, str) else text[:200])
