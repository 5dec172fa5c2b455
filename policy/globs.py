"""Match globs with paths of the workspace. The time grows with the product of the lengths, not faster."""

import unicodedata
from fnmatch import fnmatchcase
from functools import lru_cache


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

    Those differ in case, or in the form of Unicode.
    """
    names, pattern = _align_parts(path, glob)
    return _matches_parts(names, pattern) or _matches_parts([*map(_fold_case, names)], [*map(_fold_case, pattern)])


def _align_parts(path: str, glob: str) -> tuple[list[str], list[str]]:
    names, pattern = normalize_path(path).split("/"), normalize_path(glob).split("/")
    return (names[-1:] if len(pattern) == 1 else names), pattern


def normalize_path(path: str) -> str:
    """Return the path without the parts that change nothing: empty names and single dots."""
    return "/".join(name for name in path.split("/") if name not in ("", ".")) or "."


def _fold_case(text: str) -> str:
    visible = text.replace("\u200c", "").replace("\u200d", "")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())


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
    return fnmatchcase(name, pattern)
