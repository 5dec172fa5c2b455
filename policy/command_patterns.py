"""Match a command with the pattern of a grant: word by word, and never in a shape that could lead out.

A pattern is words with single blanks between them. `*`, `?` and `[...]` stand for characters of one word. A last `*`
stands for any number of words.
"""

import re
from fnmatch import fnmatchcase

from policy.paths import find_path_error
from policy.runners import has_subcommands, runs_programs
from policy.shell import Unproven, parse_commands, tokenize_without_shell
from policy.values import OUTSIDE_WORKSPACE

WILDCARD = re.compile(r"[*?\[]")
WORD_SHAPE = re.compile(r"[\w./][\w./@%+,=:-]*")
"""The characters of ordinary names and values.

Others may mean something to a program. At the beginning `-` and `+` start options, and `@` names a file of options.
"""
OPTION_START = re.compile(r"--?[A-Za-z][\w-]*=|[A-Za-z_]\w*=")
"""The part of a word before its value: `--name=`, `-n=` or NAME=. A wildcard may stand behind it only."""
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
COUNT_OPTION = re.compile(r"-[A-Za-z]\d+")
"""An option with a number, such as `-j4`."""
NODE_ID = re.compile(r"([^:]+)((?:::[A-Za-z_]\w*+)++(?:\[[\w.,+-]*\])?)")
"""A file and the names of tests in it, as pytest writes them: `tests/a.py::TestB::test_c[x-1]`."""


def split_pattern(pattern: str) -> list[str] | None:
    """Return the words of the pattern; None if anything but single blanks separates them."""
    words = pattern.split(" ")
    return words if all(words) and pattern.isprintable() and not any(map(str.isspace, "".join(words))) else None


def find_pattern_error(pattern: str) -> str | None:
    """Return a sentence why no grant may have the pattern; None if one may."""
    words = split_pattern(pattern)
    if words is None:
        return "Write the pattern as words with single blanks between them."
    if WILDCARD.search(words[0]):
        return "The pattern must name the program; use * for the words after it only."
    if runs_programs(words):
        return "This program runs other programs; remember the command itself, without a pattern."
    if has_subcommands(words[0]) and len(words) > 1 and (words[1].startswith("-") or WILDCARD.search(words[1])):
        return "Write out the command behind the name of this program; use * for the words after it only."
    if any(WILDCARD.search(word) and not _has_literal_option(word) for word in words[1:]):
        return "Write options out; use * for their values only, as in --name=*."
    return None


def _has_literal_option(part: str) -> bool:
    """Return whether no wildcard of the word stands for the name of an option."""
    if not part.startswith(("-", "+", "@")):
        return True
    return bool(_match_literal_start(part)) or re.fullmatch(r"-[A-Za-z]\*", part) is not None


def _match_literal_start(part: str) -> re.Match[str] | None:
    return OPTION_START.match(WILDCARD.split(part, maxsplit=1)[0])


def matches_command(pattern: str, command: str) -> bool:
    """Return whether the command is one plain command that matches, for a shell and for clients that use none.

    A pattern that no grant may have any more matches nothing.
    """
    parts = split_pattern(pattern)
    if parts is None or find_pattern_error(pattern):
        return False
    try:
        (parsed,) = parse_commands(command)
    except (Unproven, ValueError):
        return False
    words = [word.text for word in parsed.words]
    if any(word.is_glob for word in parsed.words) or any(split != [words] for split in tokenize_without_shell(command)):
        return False
    if parts[-1] == "*":
        parts[-1:] = ["*"] * max(0, len(words) - len(parts) + 1)
    return len(parts) == len(words) and all(map(_matches_word, words, parts))


def _matches_word(word: str, part: str) -> bool:
    """Return whether the word is the part itself, or matches it in a shape that cannot lead out of the workspace."""
    return word == part or (fnmatchcase(word, part) and _matches_option(word, part) and _stays_inside(word))


def _matches_option(word: str, part: str) -> bool:
    """Return whether the pattern writes out the option or the variable that the word has, if it has one."""
    if COUNT_OPTION.fullmatch(word):
        return part == f"{word[:2]}*"
    if not word.startswith("-") and not ASSIGNMENT.match(word):
        return True
    return (start := _match_literal_start(part)) is not None and word.startswith(start[0])


def _stays_inside(word: str) -> bool:
    """Return whether every part of the word, as an option, a value or a path, is inside the workspace, and not all."""
    if node := NODE_ID.fullmatch(word):
        word = node[1]
    if OUTSIDE_WORKSPACE.search(word) or not WORD_SHAPE.fullmatch(word.lstrip("-")):
        return False
    parts = [part for part in re.split(r"[=,:]", word.lstrip("-")) if part]
    return all(find_path_error(part) is None and part.strip("./") for part in parts)
