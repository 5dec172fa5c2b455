"""Match calls with grants: approvals that the user gave in advance, for calls like one they approved.

Pure functions. A grant never overrides a denial.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from policy.globs import matches_whole_path, normalize_path
from policy.paths import find_path_error
from policy.shell import Unproven, parse_commands, tokenize_without_shell
from policy.values import OUTSIDE_WORKSPACE

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

    def covers(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Return whether the grant approves this call. The caller counts its uses."""
        if (agent, tool) != (self.agent, self.tool):
            return False
        if tool != "execute_command":
            path = str(arguments.get("path", ""))
            return normalize_path(path) == self.pattern if self.is_exact else matches_whole_path(path, self.pattern)
        if (arguments.get("cwd"), bool(arguments.get("shell"))) != (self.cwd, self.shell):
            return False
        command = str(arguments.get("command", ""))
        return command == self.pattern if self.is_exact else _is_same_command(self.pattern, command)


INTERPRETERS = re.compile(
    r"(?:python|pypy|node|deno|bun|ruby|perl|php|lua|tclsh|Rscript|java|pwsh|powershell)[\d.]*"
    r"|(?:ba|da|z|k|mk|tc|c|fi)?sh|busybox|toybox|env|eval|exec|source|xargs|parallel|find|awk|gawk|mawk|sed|npx|pnpx"
    r"|uvx?|pipx|docker|podman|kubectl|ssh|sudo|doas|su|nohup|nice|time|timeout|watch|script|expect|gdb|vim?|nvim|emacs|ed"
)
"""Programs whose arguments are programs: a pattern for their words would cover anything."""
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


def create_grant(agent: str, tool: str, arguments: Mapping[str, Any], pattern: str | None, **terms: Any) -> Grant:
    """Return the grant for calls like this one, by its narrowest pattern if `pattern` is None.

    Raises ValueError, with a sentence for the user, if the call or the pattern cannot be granted.
    """
    narrowest = propose_pattern(tool, arguments)
    if narrowest is None:
        raise ValueError(f"A call of {tool} like this cannot be remembered; decide on this call only.")
    cwd, shell = arguments.get("cwd"), bool(arguments.get("shell"))
    is_exact = pattern in (None, narrowest)
    grant = Grant("", agent, tool, pattern or narrowest, is_exact, cwd, shell, **terms)
    if pattern and not is_exact and tool == "execute_command" and re.match(r"\s*\S*[*?\[]", pattern):
        raise ValueError("The pattern must name the program; use * for the words after it only.")
    if not grant.covers(agent, tool, arguments):
        raise ValueError(
            f"The pattern does not match the call that you decide on; the narrowest that does is {narrowest!a}."
        )
    if not is_exact and tool == "execute_command" and INTERPRETERS.fullmatch((pattern or "").split(" ")[0]):
        raise ValueError("This program runs other programs; remember the command itself, without a pattern.")
    return grant


def _is_same_command(pattern: str, command: str) -> bool:
    """Match word by word. A last `*` matches any number of words.

    The command must be one plain command, for a shell and for clients that use none.
    """
    try:
        (parsed,) = parse_commands(command)
    except (Unproven, ValueError):
        return False
    words = [word.text for word in parsed.words]
    if any(word.is_glob for word in parsed.words) or any(split != [words] for split in tokenize_without_shell(command)):
        return False
    parts = pattern.split()
    if parts and parts[-1] == "*":
        parts[-1:] = ["*"] * max(0, len(words) - len(parts) + 1)
    return len(parts) == len(words) and all(map(_matches_word, words, parts))


def _matches_word(word: str, part: str) -> bool:
    """Return whether the word is the part itself, or matches it in a shape that cannot lead out of the workspace."""
    return word == part or (fnmatchcase(word, part) and _stays_inside(word))


def _stays_inside(word: str) -> bool:
    """Return whether every part of the word, as an option, a value or a path, is inside the workspace."""
    if OUTSIDE_WORKSPACE.search(word) or not WORD_SHAPE.fullmatch(word):
        return False
    glued = [word[2:]] if re.match(r"-[A-Za-z]", word) else []
    parts = [part for text in (word.lstrip("-"), *glued) for part in re.split(r"[=,:]", text) if part]
    return all(find_path_error(part) is None for part in parts)


WORD_SHAPE = re.compile(r"[\w./@%+,=:-]+")
"""The characters of ordinary names, options and values; others may mean something to a program."""
