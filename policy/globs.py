"""Globs over paths of the workspace, in time that grows with the product of the lengths."""

import unicodedata
from fnmatch import fnmatchcase
from functools import lru_cache


def matches_glob(path: str, glob: str) -> bool:
    """`*` and `?` stay within a name, `**` stands for any folders; a glob without a slash is one of the name."""
    return _matches_parts(*_align_parts(path, glob))


def matches_whole_path(path: str, glob: str) -> bool:
    """The same, but a glob without a slash is one of the whole path."""
    return _matches_parts(normalize_path(path).split("/"), normalize_path(glob).split("/"))


def matches_any_case(path: str, glob: str) -> bool:
    """As `matches`, also for names that some file system takes for one: in any case, in any form of Unicode."""
    names, pattern = _align_parts(path, glob)
    return _matches_parts(names, pattern) or _matches_parts([*map(_fold_case, names)], [*map(_fold_case, pattern)])


def _align_parts(path: str, glob: str) -> tuple[list[str], list[str]]:
    names, pattern = normalize_path(path).split("/"), normalize_path(glob).split("/")
    return (names[-1:] if len(pattern) == 1 else names), pattern


def normalize_path(path: str) -> str:
    """Without what changes nothing: empty names and dots."""
    return "/".join(name for name in path.split("/") if name not in ("", ".")) or "."


def _fold_case(text: str) -> str:
    visible = text.replace("\u200c", "").replace("\u200d", "")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())


def _matches_parts(names: list[str], pattern: list[str]) -> bool:
    """Each `**` first takes nothing, then a name more at each failure; only the last one is ever tried again."""
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


@lru_cache(maxsize=4096)
def _matches_name(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern)
