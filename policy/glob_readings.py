"""Find out which names a glob may stand for, whichever library or shell reads it."""

import re
from typing import NamedTuple

from policy.globs import fold_name
from policy.limits import MAX_ALTERNATIVES

BRACES = re.compile(r"\{([^{}]*)\}")
SET = re.compile(r"\[([!^]?)(\]?[^\[\]/]+)\]")
OPERATORS = re.compile(r"[*?\[#^()]")
FORBIDDEN_NAMES = ("..", ".git", "git~1")
"""The folder above, the repository's data, and its short name on Windows. Its number may be another."""
MAX_GROUPS = 8
"""Groups and repetitions of a glob. Each makes the check longer; chosen, not measured."""
MAX_LENGTH = 512
"""Characters of a part with operators: twice those of a name."""
MAX_GROUP_LENGTH = 32
"""Characters of a group that are read one by one; a longer one may be anything. Chosen, not measured."""


def expand_braces(pattern: str) -> list[str] | None:
    """Return the pattern once for each alternative, inner braces first; None if they are unbalanced or too many."""
    if pattern.count("{") > MAX_ALTERNATIVES:
        return None
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


def may_be_forbidden(part: str) -> bool:
    """Return whether the part of a glob can match `..` or the repository's data.

    `x~y` is a name, or in zsh x without y.
    """
    folded = re.sub(r"\d", "1", fold_name(part))
    if not OPERATORS.search(folded):
        return not {folded, folded.partition("~")[0]}.isdisjoint(FORBIDDEN_NAMES)
    if len(folded) > MAX_LENGTH or sum(map(folded.count, "(#^")) > MAX_GROUPS:
        return True
    readings = {folded, folded.partition("~")[0]} - {""}
    return any(_can_match(elements, name) for elements in map(_read_elements, readings) for name in FORBIDDEN_NAMES)


class _Element(NamedTuple):
    """A character of a glob. `characters` is None if it matches any."""

    characters: str | None
    is_optional: bool = False
    is_repeated: bool = False

    def matches(self, character: str) -> bool:
        return self.characters is None or character in self.characters


ANYTHING = _Element(None, is_optional=True, is_repeated=True)


def _can_match(elements: list[_Element], name: str) -> bool:
    """Return whether the elements can match the name, in a library where wildcards match a dot."""
    ends = {0}
    for element in elements:
        following = {*ends} if element.is_optional else set()
        starts = ends
        while starts := {end + 1 for end in starts if end < len(name) and element.matches(name[end])} - following:
            following |= starts
            if not element.is_repeated:
                break
        ends = following
        if not ends:
            return False
    return len(name) in ends


def _read_elements(part: str) -> list[_Element]:
    """Read a part as zsh does: `^` negates the rest, `#` repeats what stands before it, `(...)` is a group.

    Another reader takes these characters as they are. So the characters of a group may also be left out.
    """
    elements: list[_Element] = []
    depth = position = 0
    while position < len(part):
        character = part[position]
        found = SET.match(part, position)
        position = found.end() if found else position + 1
        if found:
            elements.append(_Element(_list_characters(found), is_optional=depth > 0))
        elif character == "(" and part.find(")", position, position + MAX_GROUP_LENGTH) < 0:
            return [*elements, ANYTHING]
        elif character in "()":
            depth += 1 if character == "(" else -1
            elements.append(_Element(character, is_optional=True))
        elif character == "#" and elements:
            last = elements[-1]
            elements[-1] = ANYTHING if last.characters == ")" else _Element(last.characters, True, True)
        elif character == "^":
            return [*elements, ANYTHING]
        elif character == "*":
            elements.append(ANYTHING)
        else:
            elements.append(_Element(None if character == "?" else character, is_optional=depth > 0))
    return elements


def _list_characters(found: re.Match[str]) -> str | None:
    """Return the characters of a set; None if it may be any."""
    return None if found[1] or "-" in found[2] or ":" in found[2] else found[2]
