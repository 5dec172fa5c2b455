"""Find out whether a command leaves the workspace, before it runs.

Its words are read as a shell reads them, globs are expanded, each `cd` is followed, and links are resolved after that.
Where shells differ, every reading is checked.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase

from ide.shell_words import Character, ShellWord, Unreadable, read_chain
from ide.workspace import ToolError, Workspace

MAX_FOLDERS = 16
"""Folders that a command may be in after its `cd`s. Ordinary chains have one or two; chosen, not measured."""
MAX_NAMES = 50_000
"""Names that one check looks at. It takes about a quarter of a second then; a larger tree needs approval."""
MAX_STARS = 8
"""Stars of one glob, as matching gets slow with more. Chosen, not measured."""
MAX_GLUED = 64
"""Characters of a word with short options, as a path may be glued to each of them; chosen, not measured."""
VALUE_SEPARATORS = re.compile(r"[=:,@]")
"""The characters after which a word may hold a path, as in `--file=PATH`."""
FOLLOWING_OPTIONS = {
    **dict.fromkeys(("grep", "egrep", "fgrep", "rgrep"), re.compile(r"-[^-]*R.*|--der.*")),
    "diff": re.compile(r"-[^-]*r.*|--rec.*"),
    "ls": re.compile(r"-[^-]*L.*|--de.*"),
    "find": re.compile(r"-[HLP]*L[HLP]*|-follow"),
    **dict.fromkeys(("rg", "fd", "fdfind"), re.compile(r"-[^-]*L.*|--fol.*")),
    "tree": re.compile(r"-[^-]*l.*"),
    "du": re.compile(r"-[^-]*L.*|--der.*"),
}
"""The options with which a program follows the links that it finds in a folder, also when they are shortened."""
MAX_LINKS = 40
"""Links on the way to a file. Linux follows as many."""


class LeadsOut(ToolError):
    """A word of the command leads out of the workspace, or to no regular file; `str(error)` says which."""


def check_command_paths(workspace: Workspace, command: str, cwd: str | None = None) -> None:
    """Check each path of the command. Raises LeadsOut, or Unreadable if the paths are not certain."""
    _Check(workspace, os.path.join(workspace.root, *workspace.locate(cwd or "."))).check_chain(read_chain(command))


class _Check:
    """The state of one check: the folders that the command may be in, and the names that it has looked at."""

    def __init__(self, workspace: Workspace, folder: str) -> None:
        self.workspace = workspace
        self.folders = [folder]
        self.names = 0

    def check_chain(self, chain: list[list[ShellWord]]) -> None:
        for program, *words in chain:
            for folder in [*self.folders]:
                if program.text == "cd":
                    self._follow_cd(folder, words)
                else:
                    self._check_words(folder, program.text, words)

    def _follow_cd(self, folder: str, words: list[ShellWord]) -> None:
        """Add the folder that `cd` enters, and the one that it enters if links keep their names."""
        if len(words) != 1 or words[0].is_glob or words[0].text[:1] in ("-", "+", ""):
            raise Unreadable("The command changes its folder in a way that is not certain.")
        path = os.path.join(folder, words[0].text)
        for target in (_resolve_links(path) or path, os.path.normpath(path)):
            self._require_inside(target, words[0].text)
            if target not in self.folders and os.path.isdir(target):
                self.folders.append(target)
        if len(self.folders) > MAX_FOLDERS:
            raise Unreadable("The command changes its folder too often.")

    def _check_words(self, folder: str, program: str, words: list[ShellWord]) -> None:
        paths = [path for word in words for path in self._check_word(folder, word)]
        option = FOLLOWING_OPTIONS.get(program)
        if option and any(option.fullmatch(word.text) for word in words):
            for top in (folder, *filter(os.path.isdir, paths)):  # a word may be a pattern: then it reads the folder
                self._walk_links(top)

    def _check_word(self, folder: str, word: ShellWord) -> list[str]:
        """Check the word and all it may stand for, and return the paths that exist. Raises LeadsOut."""
        paths = [os.path.join(folder, text) for text in _find_path_texts(word.text)]
        for path in paths:
            self._require_inside(path, word.text)
        if word.is_glob:
            matches = [*self._expand_names(folder, word)]
            for match in matches:
                self._require_inside(match, word.text)
            paths += matches
        return [path for path in paths if os.path.lexists(path)]

    def _require_inside(self, path: str, word: str) -> None:
        """Check that the resolved path is inside the workspace, and a file or a folder. Raises LeadsOut.

        A text such as `../lib` that names nothing, and goes through no link of the workspace, is not taken for a path.
        """
        real = _resolve_links(path)
        if real is not None and self.workspace.contains(real):
            _require_ordinary(path, word)
        elif real is None or os.path.lexists(path) or self.workspace.contains(os.path.normpath(path)):
            raise LeadsOut(f"{word!r} leads out of the workspace.")

    def _expand_names(self, folder: str, word: ShellWord) -> Iterator[str]:
        """Yield the paths that a shell may put in place of the glob. Raises LeadsOut or Unreadable."""
        if sum(text == "*" for text, _ in word.characters) > MAX_STARS:
            raise Unreadable("The command holds a glob with many stars.")
        names = word.split_path()
        if "/" in word.text.partition("[")[2].rpartition("]")[0]:
            raise Unreadable("The command holds a slash between brackets.")
        if any("**" in name.text for name in names):
            self._walk_links(folder)  # some shells enter all folders
        paths = [folder] if names[0].characters else ["/"]
        for name in names:
            if not name.is_glob:
                paths = [os.path.join(path, name.text) for path in paths]
                continue
            paths = [os.path.join(path, found) for path in paths for found in self._match_names(path, name, word)]
        yield from paths

    def _match_names(self, folder: str, name: ShellWord, word: ShellWord) -> list[str]:
        """Return the names in the folder that match. Raises LeadsOut if the folder itself leads out."""
        self._require_inside(folder, word.text)
        pattern, hidden = _make_pattern(name), name.text[0] in ".["
        names = (".", "..", *self._list_names(folder))
        return [found for found in names if (hidden or found[0] != ".") and _matches_name(found, pattern)]

    def _list_names(self, folder: str) -> list[str]:
        """Return the names in the folder, none if it cannot be read. Raises Unreadable."""
        try:
            names = os.listdir(folder)
        except OSError:
            return []
        self.names += len(names)
        if self.names > MAX_NAMES:
            raise Unreadable("The command may read more files than can be checked.")
        return names

    def _walk_links(self, top: str) -> None:
        """Check every link below the folder, and below the folders that links lead to. Raises LeadsOut."""
        waiting, entered = [os.path.realpath(top)], set[str]()
        while waiting:
            folder = waiting.pop()
            if folder in entered:
                continue
            entered.add(folder)
            for name in self._list_names(folder):
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    self._require_inside(path, os.path.relpath(path, self.workspace.root))
                if os.path.isdir(path):
                    waiting.append(os.path.realpath(path))


def _resolve_links(path: str) -> str | None:
    """Return the absolute path without its links, or None if it cannot be resolved here.

    That is a path through /proc, where a link such as `self` leads every process elsewhere, and one of too many links.
    """
    waiting, real, links = path.split("/")[::-1], "/", 0
    while waiting:
        name = waiting.pop()
        real = os.path.normpath(os.path.join(real, name))
        if real == "/proc" or links > MAX_LINKS:
            return None
        with suppress(OSError):
            target = os.readlink(real)
            links += 1
            real = "/" if target.startswith("/") else os.path.dirname(real)
            waiting += target.split("/")[::-1]
    return real


def _require_ordinary(path: str, word: str) -> None:
    """Check that the path is no pipe, no socket and no device. Raises LeadsOut."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise LeadsOut(f"{word!r} leads to a pipe, a socket or a device.")


def _find_path_texts(word: str) -> list[str]:
    """Return the parts of a word that its program may take for a path. Raises Unreadable.

    A lone slash is no path here: it is a separator of `cut`, `tr` or `awk` far more often.
    """
    texts = {word, *VALUE_SEPARATORS.split(word), *(word[match.end() :] for match in VALUE_SEPARATORS.finditer(word))}
    if re.match(r"-[^-]", word):
        if len(word) > MAX_GLUED:
            raise Unreadable("The command holds a word with too many options.")
        texts |= {word[start:] for start in range(2, len(word))}
    return sorted(texts - {"", "/", "-"})


def _make_pattern(name: ShellWord) -> str:
    """Return a pattern that matches at least what any shell matches.

    A bracket expression becomes a star, because shells differ about where it ends.
    """
    characters = name.characters
    opening = next((i for i, (text, is_quoted) in enumerate(characters) if text == "[" and not is_quoted), None)
    closing = next((i for i in reversed(range(len(characters))) if characters[i].text == "]"), -1)
    if opening is None or closing < opening:
        return _join_pattern(characters)
    return f"{_join_pattern(characters[:opening])}*{_join_pattern(characters[closing + 1 :])}"


def _join_pattern(characters: tuple[Character, ...]) -> str:
    return "".join(f"[{text}]" if text == "[" or (text in "*?" and quoted) else text for text, quoted in characters)


def _matches_name(name: str, pattern: str) -> bool:
    """Return whether the name matches, by characters or by bytes: shells differ."""
    as_bytes, byte_pattern = (os.fsencode(text).decode("latin-1") for text in (name, pattern))
    return fnmatchcase(name, pattern) or fnmatchcase(as_bytes, byte_pattern)
