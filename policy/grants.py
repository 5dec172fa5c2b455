"""What a user allows in advance: calls that look like one they approved. Pure; a grant never overrides a denial."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from policy.globs import matches_whole_path, normalize_path
from policy.shell import Unproven, parse_commands, tokenize_without_shell
from policy.signatures import OUTSIDE_WORKSPACE

MAX_PATTERN_LENGTH = 4096
"""Characters of a pattern."""


class Grant(NamedTuple):
    id: str
    agent: str
    tool: str
    pattern: str
    """Of write_file and create_directory: a glob of whole paths. Of execute_command: the words as globs."""
    is_exact: bool = False
    """Whether the pattern is no glob: it is the call itself."""
    cwd: str | None = None
    """Where the approved command ran; elsewhere it is another one."""
    shell: bool = False
    uses_left: int | None = None

    def covers(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> bool:
        if (agent, tool) != (self.agent, self.tool):
            return False
        if tool != "execute_command":
            path = str(arguments.get("path", ""))
            return normalize_path(path) == self.pattern if self.is_exact else matches_whole_path(path, self.pattern)
        if (arguments.get("cwd"), bool(arguments.get("shell"))) != (self.cwd, self.shell):
            return False
        command = str(arguments.get("command", ""))
        return command == self.pattern if self.is_exact else _is_same_command(self.pattern, command)


GRANTABLE_TOOLS = {"write_file", "create_directory", "execute_command"}


def propose_pattern(tool: str, arguments: Mapping[str, Any]) -> str | None:
    """The narrowest pattern of a call: the same path, the same command. None: such a call cannot be granted."""
    if tool not in GRANTABLE_TOOLS:
        return None
    text = (
        str(arguments.get("command", ""))
        if tool == "execute_command"
        else normalize_path(str(arguments.get("path", "")))
    )
    return text if text and len(text) <= MAX_PATTERN_LENGTH else None


def create_grant(agent: str, tool: str, arguments: Mapping[str, Any], pattern: str | None, **terms: Any) -> Grant:
    """Raises ValueError with a sentence if the call, or the pattern, cannot be granted."""
    narrow = propose_pattern(tool, arguments)
    if narrow is None:
        raise ValueError(f"A call of {tool} like this cannot be remembered; decide on it alone.")
    cwd, shell = arguments.get("cwd"), bool(arguments.get("shell"))
    exact = pattern in (None, narrow)
    found = Grant("", agent, tool, pattern or narrow, exact, cwd, shell, **terms)
    if pattern and not exact and tool == "execute_command" and re.match(r"\s*\S*[*?\[]", pattern):
        raise ValueError("The pattern must name the program; use * for the words after it only.")
    if not found.covers(agent, tool, arguments):
        raise ValueError(
            f"The pattern does not match the call that you decide on; the narrowest that does is {narrow!a}."
        )
    return found


def _is_same_command(pattern: str, command: str) -> bool:
    """Word by word, when it is one plain command, whoever reads it. A last * stands for any words."""
    try:
        (only,) = parse_commands(command)
    except (Unproven, ValueError):
        return False
    words = [word.text for word in only.words]
    if any(word.is_glob for word in only.words) or any(split != [words] for split in tokenize_without_shell(command)):
        return False
    parts = pattern.split()
    if parts and parts[-1] == "*":
        parts[-1:] = ["*"] * max(0, len(words) - len(parts) + 1)
    return len(parts) == len(words) and all(map(_matches_word, words, parts))


def _matches_word(word: str, part: str) -> bool:
    leads_out = OUTSIDE_WORKSPACE.search(word) or (word.startswith("-") and OUTSIDE_WORKSPACE.search(word[2:]))
    return word == part or (fnmatchcase(word, part) and not leads_out)
