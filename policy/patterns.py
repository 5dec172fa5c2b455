"""Prove that a glob of names stays inside the workspace, whichever glob library the client uses."""

import re

from policy.limits import MAX_ALTERNATIVES, MAX_STARS
from policy.paths import find_path_error

EXTENDED_GLOB = re.compile(r"[@!+?*]\(|\|")
"""Some libraries know these groups, others take them for characters."""
BRACES = re.compile(r"\{([^{}]*)\}")
SET = re.compile(r"\[([!^]?)(\]?[^\[\]/]+)\]")
FORBIDDEN_NAMES = ("..", ".git", "git~1")


def find_pattern_error(pattern: str) -> str | None:
    """Return why the glob is refused, as `find_path_error` does; None if each name that it can match is permitted.

    Braces are expanded, sets of one character are resolved. No folder of the pattern may match `..` or the repository's
    data, but `*` and `**` alone may: every client leaves hidden folders out there. The last name may end in wildcards.
    """
    if pattern.startswith("!") or EXTENDED_GLOB.search(pattern):
        return "it holds a group or a negation that only some clients understand"
    alternatives = _expand_braces(pattern)
    if alternatives is None:
        return "its braces are not closed, or have too many alternatives"
    return next((error for each in alternatives if (error := _find_alternative_error(each))), None)


def _expand_braces(pattern: str) -> list[str] | None:
    """Return the pattern once for each alternative, inner braces first; None if they are unbalanced or too many."""
    pending, done = [pattern], list[str]()
    while pending:
        text = pending.pop()
        group = BRACES.search(text)
        if group is None:
            done.append(text)
            if "{" in text or "}" in text:
                return None
        else:
            parts = [group[0][1:-1]] if "," not in group[1] and ".." not in group[1] else group[1].split(",")
            if ".." in group[1] and "," not in group[1]:
                return None  # a sequence: only shells expand it
            pending += [text[: group.start()] + part + text[group.end() :] for part in parts]
        if len(pending) + len(done) > MAX_ALTERNATIVES:
            return None
    return done


def _find_alternative_error(pattern: str) -> str | None:
    resolved = SET.sub(lambda found: found[2] if not found[1] and len(found[2]) == 1 else found[0], pattern)
    if resolved.count("*") > MAX_STARS * 2:
        return "it has too many stars"
    *folders, last = resolved.split("/")
    if any(_can_match(part, name) for part in folders for name in FORBIDDEN_NAMES if part.strip("*")) or any(
        _can_match(last, name) for name in FORBIDDEN_NAMES if last[:1] not in ("*", "?")
    ):
        return "it could lead out of the workspace, or into the repository's own data"
    without_sets = SET.sub("x", resolved)
    if "[" in without_sets or "]" in without_sets:
        return "it holds a bracket that is not closed"
    return find_path_error(re.sub(r"[*?]", "x", without_sets)) if resolved else "it is empty"


def _can_match(part: str, name: str) -> bool:
    """Return whether a part of the pattern can match the name, in a library where wildcards match a dot."""
    ends = {0}
    for character in SET.sub("?", part):
        if character == "*":
            ends = set(range(min(ends), len(name) + 1))
        else:
            ends = {end + 1 for end in ends if end < len(name) and character in ("?", *_variants(name[end]))}
        if not ends:
            return False
    return len(name) in ends


def _variants(letter: str) -> str:
    """Return the characters that some file systems take for the letter."""
    return letter + letter.upper() + ("\u0130\u0131" if letter == "i" else "")
