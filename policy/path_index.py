"""Find the paths among the words of a command that a warning or a rule is about, without comparing each with each."""

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import translate
from typing import NamedTuple

from policy.command_paths import ANY_PATH, iterate_reaches
from policy.globs import fold_name, has_short_name, may_match, normalize_path

MAX_COMPARISONS = 500
"""Comparisons of paths with globs, for one command: they take 2 ms. A command with more is taken to name a path."""
WILDCARD = re.compile(r"[*?\[]")


class IndexedGlob(NamedTuple):
    glob: str
    text: str
    """The text that belongs to it: the sentence of a warning, or the id of a rule."""


class PathIndex:
    """Globs of paths by the names in them, since a command may have a thousand words.

    A folder that a glob names counts as well: a command may put files into it, or remove it.
    """

    def __init__(self, globs: Iterable[tuple[str, str]]) -> None:
        """Take each glob with its text."""
        self._by_name: dict[str, list[IndexedGlob]] = {}
        self._nameless: list[IndexedGlob] = []
        self._all: list[IndexedGlob] = []
        for glob, text in globs:
            for part in _iterate_folders(glob):
                self._add(IndexedGlob(part, text))
        names = [translate(fold_name(each.glob.rpartition("/")[2])) for each in self._nameless]
        self._last_names = re.compile("|".join(names) or r"(?!)", re.DOTALL)

    def _add(self, indexed: IndexedGlob) -> None:
        self._all.append(indexed)
        name = next((part for part in indexed.glob.split("/") if part and not WILDCARD.search(part)), None)
        if name is None:
            self._nameless.append(indexed)
        else:
            self._by_name.setdefault(fold_name(name), []).append(indexed)

    def find(self, paths: Sequence[str]) -> tuple[str, str] | None:
        """Return the first path that a glob matches or names as a folder, and the text of the glob."""
        left = MAX_COMPARISONS
        for path in paths if self._all else ():
            if path == ANY_PATH:
                return path, self._all[0].text
            names = [fold_name(name) for name in path.split("/")]
            candidates = [each for name in names for each in self._by_name.get(name, ())]
            if has_short_name(path):
                candidates = self._all
            elif self._last_names.match(names[-1]):
                candidates += self._nameless
            left -= len(candidates)
            for each in candidates:
                if left < 0 or may_match(path, each.glob):
                    return path, each.text
        return None


def _iterate_folders(glob: str) -> Iterator[str]:
    """Yield the glob, then each beginning of it that names a folder."""
    yield glob
    parts = normalize_path(glob).split("/")
    for end in range(1, len(parts)):
        if not WILDCARD.search(parts[end - 1]):
            yield "/".join(parts[:end])


def list_paths(command: str, cwd: str) -> list[str]:
    """Return the paths that the words of the command, or parts of them, may mean."""
    return [*dict.fromkeys(reach.path for reach in iterate_reaches(command, cwd))]
