"""May this agent do this, and must a human agree? Pure functions over rules as data; nothing here reads or runs.

What is not proven harmless asks; what an agent may not do is refused; unknown means no.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, Protocol

from policy.commands import is_read_only
from policy.paths import fault, pattern_fault

Decision = Literal["allow", "ask", "deny"]


class Verdict(NamedTuple):
    decision: Decision
    rule: str
    """The stable id of the rule that decided."""
    reason: str
    """A sentence for the user, and for the model when it is refused."""


class Limits(Protocol):
    """What is asked of an agent's file."""

    @property
    def title(self) -> str: ...
    @property
    def tools(self) -> Sequence[str]: ...
    @property
    def may_write(self) -> Sequence[str]: ...
    @property
    def read_only_commands(self) -> bool: ...


PATHS = dict.fromkeys(("read_file", "write_file", "list_files", "create_directory", "search_in_code"), "path")
"""The argument of each tool that must name something inside the workspace."""

PATTERNS = {"list_files": "pattern", "search_in_code": "file_pattern"}
"""The argument of each tool that is a glob of names inside the workspace."""

HARMLESS = {
    "read_file": "Reading a file of the workspace changes nothing.",
    "list_files": "Listing a folder of the workspace changes nothing.",
    "search_in_code": "Searching the workspace changes nothing.",
    "echo": "It only repeats a text.",
    "calculator": "It only computes.",
    "switch_mode": "It only hands the conversation on.",
    "attempt_completion": "It only ends the turn.",
    "ask_followup_question": "It only asks the user.",
}


def judge(agent: Limits, tool: str, arguments: Mapping[str, Any]) -> Verdict:
    """Of a call whose arguments fit the tool's schema."""
    return _refused(agent, tool, arguments) or _asked(agent, tool, arguments) or _allowed(tool)


def _refused(agent: Limits, tool: str, arguments: Mapping[str, Any]) -> Verdict | None:
    who = agent.title.removesuffix(" Agent")
    if tool not in agent.tools:
        return Verdict("deny", "agent.tool", f"{who} may not use {tool}; it may use {', '.join(agent.tools)}.")
    path = arguments.get(PATHS.get(tool, ""))
    if path is not None and (wrong := fault(path)):
        return Verdict("deny", "path.outside", f"The path {path[:200]!r} is refused: {wrong}.")
    pattern = arguments.get(PATTERNS.get(tool, ""))
    if pattern is not None and (wrong := pattern_fault(pattern)):
        return Verdict("deny", "pattern.outside", f"The pattern {pattern[:200]!r} is refused: {wrong}.")
    if tool == "write_file" and not _matches(str(path), agent.may_write):
        globs = ", ".join(agent.may_write)
        return Verdict("deny", "agent.may_write", f"{who} may write only {globs} files; {path!r} is not one.")
    return None


def _asked(agent: Limits, tool: str, arguments: Mapping[str, Any]) -> Verdict | None:
    match tool:
        case "write_file":
            return Verdict("ask", "write.file", "Writing a file needs the user's approval.")
        case "create_directory":
            return Verdict("ask", "write.directory", "Creating a folder needs the user's approval.")
        case "execute_command" if not is_read_only(arguments):
            rule = "agent.read_only_commands" if agent.read_only_commands else "command.unproven"
            return Verdict("ask", rule, "The command is not proven read-only, so it needs the user's approval.")
    return None


def _allowed(tool: str) -> Verdict:
    if tool == "execute_command":
        return Verdict("allow", "command.read_only", "The command is known to only read.")
    if tool in HARMLESS:
        return Verdict("allow", f"harmless.{tool}", HARMLESS[tool])
    return Verdict("deny", "unknown", f"No rule knows {tool}.")


def _matches(path: str, globs: Sequence[str]) -> bool:
    whole = path.casefold()
    name = whole.rpartition("/")[2]
    return any(fnmatchcase(whole, glob.casefold()) or fnmatchcase(name, glob.casefold()) for glob in globs)
