"""Match calls with grants: approvals that the user gave in advance, for calls like one they approved.

Pure functions. A grant never overrides a denial.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from policy.command_patterns import find_pattern_error, matches_command
from policy.globs import matches_whole_path, normalize_path

MAX_PATTERN_LENGTH = 4096
"""Characters of a pattern, as many as a command has bytes at most (`policy.shell`)."""


class Grant(NamedTuple):
    """An approval in advance."""

    id: str
    agent: str
    tool: str
    pattern: str
    """For write_file and create_directory a glob of whole paths, for execute_command a glob for each word."""
    is_exact: bool = False
    """True if the pattern is no glob, but the path or the command of the call itself."""
    cwd: str | None = None
    """The folder of the approved command. In another folder it is another command."""
    shell: bool = False
    """True if a shell runs the command."""
    uses_left: int | None = None
    """The calls that it still covers. None: any number."""

    arguments_hash: str | None = None
    """The hash of the arguments of the approved call. None: a grant of an earlier version, which has none."""

    def covers(self, agent: str, tool: str, arguments: Mapping[str, Any], *, is_protected: bool = False) -> bool:
        """Return whether the grant approves this call. The caller counts its uses.

        A protected call must have the same arguments as the approved one, also the content of a file.
        """
        if (agent, tool) != (self.agent, self.tool):
            return False
        if is_protected:
            return self.is_exact and self.arguments_hash == hash_arguments(arguments)
        if tool != "execute_command":
            path = str(arguments.get("path", ""))
            return normalize_path(path) == self.pattern if self.is_exact else matches_whole_path(path, self.pattern)
        if (arguments.get("cwd"), bool(arguments.get("shell"))) != (self.cwd, self.shell):
            return False
        command = str(arguments.get("command", ""))
        return command == self.pattern if self.is_exact else matches_command(self.pattern, command)


GRANTABLE_TOOLS = {"write_file", "create_directory", "execute_command"}
"""The tools whose calls may need approval."""


def propose_pattern(tool: str, arguments: Mapping[str, Any]) -> str | None:
    """Return the narrowest pattern of a call: its path or its command. None: such a call cannot be granted."""
    if tool not in GRANTABLE_TOOLS:
        return None
    text = (
        str(arguments.get("command", ""))
        if tool == "execute_command"
        else normalize_path(str(arguments.get("path", "")))
    )
    return text if text and len(text) <= MAX_PATTERN_LENGTH else None


def hash_arguments(arguments: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the arguments that have a value, whatever their order."""
    values = {name: value for name, value in arguments.items() if value is not None}
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def create_grant(agent: str, tool: str, arguments: Mapping[str, Any], pattern: str | None, **terms: Any) -> Grant:
    """Return the grant for calls like this one, by its narrowest pattern if `pattern` is None.

    Raises ValueError, with a sentence for the user, if the call or the pattern cannot be granted.
    """
    narrowest = propose_pattern(tool, arguments)
    if narrowest is None:
        raise ValueError(f"A call of {tool} like this cannot be remembered; decide on this call only.")
    cwd, shell = arguments.get("cwd"), bool(arguments.get("shell"))
    is_exact = pattern in (None, narrowest)
    same = hash_arguments(arguments)
    grant = Grant("", agent, tool, pattern or narrowest, is_exact, cwd, shell, arguments_hash=same, **terms)
    if not is_exact and tool == "execute_command" and (error := find_pattern_error(grant.pattern)):
        raise ValueError(error)
    if not grant.covers(agent, tool, arguments):
        raise ValueError(
            f"The pattern does not match the call that you decide on; the narrowest that does is {narrowest!a}."
        )
    return grant
