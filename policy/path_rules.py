"""Apply the rules with `paths` to every way of reading or writing a path: commands, their patterns, and searches."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from policy.command_paths import Reach, iterate_reaches
from policy.file_names import is_file_name
from policy.globs import (
    has_short_name,
    has_wildcard,
    matches_any_case,
    normalize_path,
    overlaps_glob,
    overlaps_short_name,
)
from policy.rules import Policy, Rule

PATH_TOOLS = ("read_file", "write_file", "search_in_code", "list_files", "create_directory", "execute_command")
READ_TOOLS = ("read_file", "search_in_code")
MAX_WORK = 1500
"""The work of one call. A comparison of a path with a glob counts 1, of two globs a quarter of the characters more.

It takes up to 3 ms, as measured. A call with more of it may reach anything, so it asks.
"""


class Restriction(NamedTuple):
    rule: Rule
    is_certain: bool
    """False if the call may reach the path, but does not name it."""


def find_restriction(policy: Policy, agent: str, tool: str, arguments: Mapping[str, Any]) -> Restriction | None:
    """Return the rule with paths that a command or a search reaches: a `deny` for a named path before all others."""
    rules = [rule for rule in policy.rules if rule.paths and rule.decision != "allow"]
    match tool:
        case "execute_command":
            rules = [rule for rule in rules if any(rule.applies_to(agent, tool) for tool in PATH_TOOLS)]
            if not rules:
                return None
            reaches = iterate_reaches(str(arguments.get("command", "")), str(arguments.get("cwd") or "."))
        case "search_in_code":
            rules = [rule for rule in rules if _is_about_reading(rule, agent)]
            reaches = iter(_find_search(arguments))
        case "read_file" | "write_file" | "list_files" | "create_directory":
            path = normalize_path(str(arguments.get("path") or "."))
            if not has_short_name(path):
                return None  # the rules have compared it already
            rules = [rule for rule in rules if rule.applies_to(agent, tool)]
            reaches = iter([Reach(path, is_named=False)])
        case _:
            return None
    return _Comparison(agent, rules).find_restriction(reaches)


def _find_search(arguments: Mapping[str, Any]) -> Iterable[Reach]:
    folder, pattern = normalize_path(str(arguments.get("path") or ".")), arguments.get("file_pattern")
    if not pattern:
        return [Reach(folder, is_folder=not is_file_name(folder), only_reads=True)]
    paths = (f"{folder}/{pattern}", f"{folder}/**/{pattern}")
    return [Reach(normalize_path(path), only_reads=True) for path in paths]


def _is_about_reading(rule: Rule, agent: str) -> bool:
    return any(rule.applies_to(agent, tool) for tool in READ_TOOLS)


class _Comparison:
    """The comparison of one call with the rules that apply to it, which are in their order."""

    def __init__(self, agent: str, rules: list[Rule]) -> None:
        self._rules = [(rule, _is_about_reading(rule, agent)) for rule in rules]
        self._globs = sum(len(rule.paths or ()) for rule in rules)
        self._left = MAX_WORK

    def find_restriction(self, reaches: Iterable[Reach]) -> Restriction | None:
        found: list[Restriction] = []
        seen = set[Reach]()
        for reach in reaches:
            self._left -= 1 if reach in seen else 3 + self._globs * self._weigh(reach)
            if self._left <= 0:
                found += [Restriction(rule, is_certain=False) for rule, _ in self._rules[:1]]
                break
            if reach not in seen and (restriction := self._find_rule(reach)):
                found.append(restriction)
            seen.add(reach)
        return min(found, key=self._rank, default=None)

    @staticmethod
    def _weigh(reach: Reach) -> int:
        is_literal = not (reach.is_folder or reach.is_above or reach.is_outside or has_wildcard(reach.path))
        return 1 if is_literal else 1 + len(reach.path) // 4

    def _rank(self, restriction: Restriction) -> tuple[bool, bool, int]:
        """Order the restrictions: denials, then rules for named paths, then the order of the file."""
        is_denial = restriction.is_certain and restriction.rule.decision == "deny"
        order = next(i for i, (rule, _) in enumerate(self._rules) if rule is restriction.rule)
        return not is_denial, not restriction.is_certain, order

    def _find_rule(self, reach: Reach) -> Restriction | None:
        """Return the first rule for the path itself, else the first that it may reach."""
        uncertain: Restriction | None = None
        for rule, is_about_reading in self._rules:
            if reach.is_named and any(_names(reach.path, glob) for glob in rule.paths or ()):
                return Restriction(rule, is_certain=True)
            if uncertain is None and any(
                _may_reach(reach, glob, is_about_reading=is_about_reading) for glob in rule.paths or ()
            ):
                uncertain = Restriction(rule, is_certain=False)
        return uncertain


def _names(path: str, glob: str) -> bool:
    """Return whether the path is one of the glob's, or a glob for one that the glob names without wildcards.

    The last name of such a glob begins with a character: `.e*` names `.env`, `docs/*` does not.
    """
    if matches_any_case(path, glob):
        return True
    if not has_wildcard(path) or has_wildcard(glob):
        return False
    return path.rpartition("/")[2][:1] not in ("*", "?", "[") and overlaps_glob(path, glob)


def _may_reach(reach: Reach, glob: str, *, is_about_reading: bool) -> bool:
    if overlaps_short_name(reach.path, glob):
        return True
    if reach.is_outside:
        glob = f"**/{glob}"
    elif not reach.is_named and matches_any_case(reach.path, glob):
        return True
    if (has_wildcard(reach.path) or reach.is_outside) and overlaps_glob(reach.path, glob):
        return True
    is_folder = reach.is_folder and (is_about_reading or not reach.only_reads)
    is_above = reach.is_above and ("/" in glob.removeprefix("**/") or reach.path == ".")
    return (is_folder or is_above) and overlaps_glob(f"{reach.path}/**", glob)
