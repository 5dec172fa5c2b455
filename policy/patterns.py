"""Prove that a glob of names stays inside the workspace, whichever glob library the client uses."""

import re

from policy.glob_readings import SET, expand_braces, may_be_forbidden
from policy.limits import MAX_STARS
from policy.paths import MAX_PATH_BYTES, find_argument_error

EXTENDED_GLOB = re.compile(r"[@!+?*]\(|\|")
"""Some libraries know these groups, others take them for characters."""


def find_pattern_error(pattern: str) -> str | None:
    """Return why the glob is refused, as `find_path_error` does; None if each name that it can match is permitted.

    Braces are expanded, sets of one character are resolved. No folder of the pattern may match `..` or the repository's
    data, but `*` and `**` alone may: every client leaves hidden folders out there. The last name may end in wildcards.
    """
    if pattern.startswith("!") or EXTENDED_GLOB.search(pattern):
        return "it holds a group or a negation that only some clients understand"
    alternatives = expand_braces(pattern)
    if alternatives is None:
        return "its braces are not closed, or have too many alternatives"
    if len(pattern) * len(alternatives) > MAX_PATH_BYTES:
        return "it is too long"
    return next((error for each in alternatives if (error := _find_alternative_error(each))), None)


def _find_alternative_error(pattern: str) -> str | None:
    resolved = SET.sub(lambda found: found[2] if not found[1] and len(found[2]) == 1 else found[0], pattern)
    if resolved.count("*") > MAX_STARS * 2:
        return "it has too many stars"
    *folders, last = resolved.split("/")
    if any(may_be_forbidden(part) for part in folders if part.strip("*")) or (
        last[:1] not in ("*", "?") and may_be_forbidden(last)
    ):
        return "it could lead out of the workspace, or into the repository's own data"
    without_sets = SET.sub("x", resolved)
    if "[" in without_sets or "]" in without_sets:
        return "it holds a bracket that is not closed"
    return find_argument_error(re.sub(r"[*?]", "x", without_sets)) if resolved else "it is empty"
