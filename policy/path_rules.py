"""Apply the rules with `paths` to every way of reading or writing a path: commands, their patterns, and searches."""

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from policy.globs import matches_any_case, normalize_path
from policy.rules import Policy, Rule
from policy.shell import Unproven, parse_commands

PATH_TOOLS = ("read_file", "write_file", "search_in_code", "list_files", "create_directory", "execute_command")
READ_TOOLS = ("read_file", "search_in_code")
RECURSIVE_GREPS = {"grep", "egrep", "fgrep", "zgrep"}
SEARCH_PROGRAMS = {"rg", "ag", "ack", "ugrep", "tar", "zip", "cp", "rsync", "scp"}
"""Programs that read every file of a folder; grep does so with `-r`."""
SEPARATORS = re.compile(r"[\s'\"=:,;|&<>(){}$`]+")


class Restriction(NamedTuple):
    rule: Rule
    is_certain: bool
    """False if the call may reach the path, but does not name it."""


def find_restriction(policy: Policy, agent: str, tool: str, arguments: Mapping[str, Any]) -> Restriction | None:
    """Return the first `deny` or `ask` rule with paths that a command or a search reaches."""
    match tool:
        case "execute_command":
            command, folder = str(arguments.get("command", "")), str(arguments.get("cwd") or ".")
            words = {*_command_paths(command, folder)}
            return _find_rule(policy, agent, PATH_TOOLS, words, is_search=_reads_folders(command))
        case "search_in_code":
            pattern = str(arguments.get("file_pattern") or "")
            names = {pattern} if pattern else set()
            return _find_rule(policy, agent, READ_TOOLS, names, is_search=True, pattern=pattern)
    return None


def _find_rule(
    policy: Policy, agent: str, tools: Iterable[str], paths: set[str], *, is_search: bool, pattern: str = ""
) -> Restriction | None:
    restrictions = [
        rule
        for rule in policy.rules
        if rule.paths and rule.decision != "allow" and any(rule.applies_to(agent, tool) for tool in tools)
    ]
    for rule in restrictions:
        if any(_overlaps(path, glob) for path in paths for glob in rule.paths or ()):
            return Restriction(rule, is_certain=True)
    if not is_search:
        return None
    readable = (rule for rule in restrictions if any(rule.applies_to(agent, tool) for tool in READ_TOOLS))
    reached = (rule for rule in readable if not pattern or any(_has_wildcard(glob) for glob in rule.paths or ()))
    return next((Restriction(rule, is_certain=False) for rule in reached), None)


def _reads_folders(command: str) -> bool:
    """Return whether a part of the command may read every file of a folder."""
    for part in re.split(r"[;&|\n]", command):
        programs = {word.rpartition("/")[2] for word in part.split()}
        is_recursive = any(re.match(r"-[A-Za-z]*[rR]|--(dereference-)?recursive", word) for word in part.split())
        if programs & SEARCH_PROGRAMS or (programs & RECURSIVE_GREPS and is_recursive):
            return True
    return False


def _overlaps(path: str, glob: str) -> bool:
    """Return whether the word is such a path, or is a glob that matches one."""
    if matches_any_case(path, glob):
        return True
    name = glob.rpartition("/")[2]
    return (
        _has_wildcard(path)
        and not _has_wildcard(name)
        and fnmatchcase(name.casefold(), path.rpartition("/")[2].casefold())
    )


def _has_wildcard(text: str) -> bool:
    return any(character in text for character in "*?[")


def _command_paths(command: str, folder: str) -> Iterator[str]:
    """Yield every word of a command, and every part of one, as a path of the workspace."""
    try:
        words = [word.text for each in parse_commands(command) for word in each.words[1:]]
    except (Unproven, ValueError):
        words = []
    for word in [*words, *SEPARATORS.split(command), *(part for each in words for part in SEPARATORS.split(each))]:
        if word:
            yield normalize_path(word)
            yield normalize_path(f"{folder}/{word}")
            yield normalize_path(re.sub(r"^-\w", "", word))
