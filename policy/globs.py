"""Match globs with paths of the workspace, and with each other. The time grows with the product of the lengths."""

import re
import unicodedata
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import product

from textsafety import INVISIBLE_CHARACTERS

SET = re.compile(r"\[.*\]", re.DOTALL)
"""The sets of a name, from the first bracket to the last. Shells differ about where a set ends."""

MAX_NAMES = 32
"""Names of a glob that are compared one by one; a longer one may match any path. Chosen, not measured."""


def matches_glob(path: str, glob: str) -> bool:
    """Return whether the path matches. `*` and `?` match within a name, `**` matches any folders.

    A glob without a slash is compared with the last name of the path only.
    """
    return _matches_parts(*_align_parts(path, glob))


def matches_whole_path(path: str, glob: str) -> bool:
    """Match as `matches_glob` does, but compare a glob without a slash with the whole path."""
    return _matches_parts(normalize_path(path).split("/"), normalize_path(glob).split("/"))


def matches_any_case(path: str, glob: str) -> bool:
    """Match as `matches_glob` does, and also names that some file system takes for the same.

    Those differ in case, in the form of Unicode, or in characters that nobody sees.
    """
    names, pattern = _fold_parts(path), _fold_parts(glob)
    if len(pattern) == 1:
        names = names[-1:]
    if names[-1] == pattern[-1] or has_wildcard(pattern[-1]):
        if _matches_parts(names, pattern):
            return True
    elif path.isascii():
        return False
    return not (path.isascii() and glob.isascii()) and matches_glob(path, glob)


def overlaps_glob(pattern: str, glob: str) -> bool:
    """Return whether some path matches both, as `matches_any_case` compares. A set counts as any characters.

    A wildcard may match a leading dot, since shells can be set so. `glob` without a slash is for the last name only.
    """
    parts = normalize_path(glob).split("/")
    others = parts if len(parts) > 1 else ["**", *parts]
    names = normalize_path(pattern).split("/")
    if len(names) > MAX_NAMES:
        names = ["**"]
    return any(
        _overlaps_parts([*map(form, names)], [*map(form, others)])
        for form in (FORMS[:1] if pattern.isascii() and glob.isascii() else FORMS)
    )


SHORT_NAME = re.compile(r"([^/.]{0,7})~\d+(\.[^/.]{1,3})?", re.IGNORECASE)
"""A name of at most eight characters that NTFS gives a file with a longer one: `GITHUB~1` is `.github`."""
MAX_SHORT_NAMES = 2
"""Short names of a path that are read one by one; more may be any path. Chosen, not measured."""


def may_match(path: str, glob: str) -> bool:
    """Match as `matches_any_case` does, and also paths whose short names of NTFS may stand for one that matches."""
    return matches_any_case(path, glob) or ("~" in path and overlaps_short_name(path, glob))


def overlaps_short_name(path: str, glob: str) -> bool:
    """Return whether the path holds a short name, and one of the paths that it may stand for matches the glob."""
    if "~" not in path:
        return False
    extension, last = _extension(path), _extension(glob)
    if SHORT_NAME.fullmatch(path.rpartition("/")[2]) and not has_wildcard(last) and last[:3] != extension:
        return False
    return any(overlaps_glob(each, glob) for each in _expand_short_names(path))


def has_short_name(path: str) -> bool:
    """Return whether a name in the path may be a short one."""
    return "~" in path and any(map(SHORT_NAME.fullmatch, path.split("/")))


def _extension(path: str) -> str:
    """Return the characters behind the last dot of the last name, but for a dot at its start, in lower case."""
    return path.rpartition("/")[2].lstrip(".").partition(".")[2].rpartition(".")[2].lower()


def _expand_short_names(path: str) -> list[str]:
    """Return globs for the paths that the short names in the path may stand for; an empty list if there is none.

    A short name has the first two characters of the long one, without the dot at its start, and of its extension three.
    """
    names = path.split("/")
    choices = [_expand_short_name(name) for name in names]
    if sum(map(bool, choices)) > MAX_SHORT_NAMES:
        return ["**"]
    paths = product(*(choice or [name] for choice, name in zip(choices, names, strict=True)))
    return ["/".join(each) for each in paths] if any(choices) else []


def _expand_short_name(name: str) -> list[str]:
    found = SHORT_NAME.fullmatch(name)
    if found is None:
        return []
    rest = f"{found[1][:2].replace('_', '?')}*{found[2] or ''}*"
    return [rest, f".{rest}"]


def has_wildcard(text: str) -> bool:
    """Return whether the text holds `*`, `?` or a bracket."""
    return "*" in text or "?" in text or "[" in text


def _align_parts(path: str, glob: str) -> tuple[list[str], list[str]]:
    names, pattern = normalize_path(path).split("/"), normalize_path(glob).split("/")
    return (names[-1:] if len(pattern) == 1 else names), pattern


def normalize_path(path: str) -> str:
    """Return the path without the parts that change nothing: empty names and single dots."""
    return "/".join(name for name in path.split("/") if name not in ("", ".")) or "."


@lru_cache(maxsize=1024)  # the globs of a policy are compared again and again; chosen, not measured
def _fold_parts(path: str) -> list[str]:
    return [fold_name(name) for name in normalize_path(path).split("/")]


def fold_name(text: str) -> str:
    """Return the text in a form in which names are equal that some file system takes for the same.

    It has no case, no compatibility characters and no invisible characters; every i of Turkish is an i.
    """
    if text.isascii():
        return text.lower()
    visible = "".join(char for char in INVISIBLE_CHARACTERS.sub("", text) if unicodedata.category(char) != "Cf")
    folded = unicodedata.normalize("NFKC", visible.replace("\u0130", "i").replace("\u0131", "i")).casefold()
    return unicodedata.normalize("NFKC", folded.replace("\u0131", "i"))


def _decompose(text: str) -> str:
    return unicodedata.normalize("NFD", text.lower())


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text.lower())


def _as_bytes(text: str) -> str:
    return text.encode("utf-8", "replace").decode("latin-1")


FORMS = (
    fold_name,
    _compose,
    _decompose,
    lambda text: _as_bytes(_compose(text)),
    lambda text: _as_bytes(_decompose(text)),
)
"""The forms of a name in which a `?` may count characters: some shells count bytes."""


def _matches_parts(names: list[str], pattern: list[str]) -> bool:
    """Match name by name, without recursion.

    Each `**` first matches no name, then one name more after each failure. Only the last `**` is tried again.
    """
    name = part = 0
    star, resume = -1, 0
    while name < len(names):
        if part < len(pattern) and pattern[part] == "**":
            star, resume, part = part, name, part + 1
        elif part < len(pattern) and _matches_name(names[name], pattern[part]):
            name, part = name + 1, part + 1
        elif star >= 0:
            resume += 1
            name, part = resume, star + 1
        else:
            return False
    return all(rest == "**" for rest in pattern[part:])


@lru_cache(maxsize=4096)  # the names of a workspace repeat; chosen, not measured
def _matches_name(name: str, pattern: str) -> bool:
    return name == pattern if not has_wildcard(pattern) else fnmatchcase(name, pattern)


def _overlaps_parts(parts: list[str], others: list[str]) -> bool:
    """Keep the positions in `others` that the parts so far can lead to. `**` leads to every later position."""
    positions = _skip_folders({0}, others)
    for part in parts:
        if part == "**":
            positions = set(range(min(positions), len(others) + 1))
        else:
            stay = {each for each in positions if each < len(others) and others[each] == "**"}
            steps = {each + 1 for each in positions - stay if each < len(others) and _overlaps_name(part, others[each])}
            positions = _skip_folders(stay | steps, others)
        if not positions:
            return False
    return len(others) in positions


def _skip_folders(positions: set[int], parts: list[str]) -> set[int]:
    """Add the positions behind each `**`, which may match no folder."""
    for each in range(min(positions, default=0), len(parts)):
        if each in positions and parts[each] == "**":
            positions.add(each + 1)
    return positions


@lru_cache(maxsize=4096)  # as `_matches_name`
def _overlaps_name(name: str, other: str) -> bool:
    """Return whether some name matches both globs.

    Bit n of `states` is set if the characters of `name` so far can match the first n of `other`.
    """
    if not has_wildcard(name) and not has_wildcard(other):
        return name == other
    name, other = SET.sub("*", name), SET.sub("*", other)
    stars = sum(1 << i for i, char in enumerate(other) if char == "*")
    whole = (1 << len(other) + 1) - 1
    accepting: dict[str, int] = {}
    for i, char in enumerate(other):
        accepting[char] = accepting.get(char, 0) | 1 << i
    questions = accepting.pop("?", 0)
    states = _skip_stars(1, stars)
    for char in name:
        if char == "*":
            states = whole & -(states & -states)  # every state from the lowest on
        else:
            taken = whole if char == "?" else accepting.get(char, 0) | questions
            states = _skip_stars(((states & taken & ~stars) << 1 & whole) | (states & stars), stars)
        if not states:
            return False
    return bool(states >> len(other))


def _skip_stars(states: int, stars: int) -> int:
    """Add the states behind each star, which may match nothing."""
    while (more := states | (states & stars) << 1) != states:
        states = more
    return states
