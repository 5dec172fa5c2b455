"""Read the words of a command line as a shell reads them, or refuse to.

Every shell that may be `/bin/sh` agrees on what is read here: plain words, quotes, escapes, and the operators `&&`,
`||`, `|` and `;`. Anything else is refused, because its words are not certain.
"""

import re
from typing import NamedTuple

from ide.workspace import ToolError


class Unreadable(ToolError):
    """The words of the command are not certain; `str(error)` says why."""


class Character(NamedTuple):
    """A character of a word."""

    text: str
    is_quoted: bool
    """True if the shell takes it as it is."""


class ShellWord(NamedTuple):
    """A word of a command."""

    characters: tuple[Character, ...]

    @property
    def text(self) -> str:
        """Return the word without its quotes, and with its globs as they are."""
        return "".join(character.text for character in self.characters)

    @property
    def is_glob(self) -> bool:
        """Return whether a shell replaces the word by the names that match it."""
        return any(text in GLOB_CHARACTERS and not is_quoted for text, is_quoted in self.characters)

    def split_path(self) -> list["ShellWord"]:
        """Return the names between the slashes; an absolute path starts with an empty one."""
        names: list[list[Character]] = [[]]
        for character in self.characters:
            if character.text == "/":
                names.append([])
            else:
                names[-1].append(character)
        return [ShellWord(tuple(name)) for name in names]


MAX_LENGTH = 2000
"""Characters of a line. The time of a check grows with its square; the service lets 1,024 bytes pass unasked."""
GLOB_CHARACTERS = frozenset("*?[")
REFUSED_CHARACTERS = {
    **dict.fromkeys("$`", "a variable or a substitution"),
    **dict.fromkeys("<>", "a redirection"),
    **dict.fromkeys("(){}", "a group or braces"),
    "&": "a command in the background",
}
OPERATOR = re.compile(r"&&|\|\||\||;")
LONE_EQUALS = re.compile(r"==?(?=[ \t]|$)")
PROGRAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*|\[")
RESERVED_WORDS = frozenset(
    (
        *("case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "foreach", "function", "if", "in"),
        *("namespace", "nocorrect", "noglob", "repeat", "select", "then", "time", "until", "while"),
    )
)
INDIRECT_PROGRAMS = frozenset(
    (
        *(".", "alias", "autoload", "builtin", "declare", "disable", "emulate", "enable", "env", "eval", "exec"),
        *("export", "float", "functions", "getopts", "hash", "integer", "let", "local", "mapfile", "nameref"),
        *("popd", "pushd", "read", "readarray", "readonly", "set", "setopt", "shopt", "source", "trap"),
        *("typeset", "unalias", "unset", "unsetopt", "xargs", "zmodload"),
    )
)
"""Programs that run their words, change the folder, or change how the shell reads the rest."""


def read_chain(line: str) -> list[list[ShellWord]]:
    """Return the commands of the line, each as its words. Raises Unreadable."""
    if len(line) > MAX_LENGTH:
        raise Unreadable("The command is too long to be checked.")
    if not line.replace("\t", " ").isprintable():
        raise Unreadable("The command holds a line break or a character that cannot be seen.")
    chain: list[list[ShellWord]] = [[]]
    position = 0
    while position < len(line):
        if line[position] in " \t":
            position += 1
        elif operator := OPERATOR.match(line, position):
            chain.append([])
            position = operator.end()
        else:
            word, position = _read_word(line, position)
            chain[-1].append(word)
    if len(chain) > 1 and not chain[-1] and line.rstrip(" \t").endswith(";"):
        chain.pop()
    for words in chain:
        _check_program(words)
    return chain


def _read_word(line: str, position: int) -> tuple[ShellWord, int]:
    """Return the word that starts at the position, and the position after it. Raises Unreadable."""
    characters: list[Character] = []
    start = position
    while position < len(line) and line[position] not in " \t" and not OPERATOR.match(line, position):
        character = line[position]
        if character == "'":
            end = line.find("'", position + 1)
            if end < 0:
                raise Unreadable("The command holds a quote that is not closed.")
            characters += [Character(text, True) for text in line[position + 1 : end]]
            position = end + 1
        elif character == '"':
            position = _read_double_quotes(line, position + 1, characters)
        elif character == "\\":
            if position + 1 == len(line):
                raise Unreadable("The command ends with a backslash.")
            characters.append(Character(line[position + 1], True))
            position += 2
        else:
            _check_plain(line, start, position)
            characters.append(Character(character, False))
            position += 1
    return ShellWord(tuple(characters)), position


def _read_double_quotes(line: str, position: int, characters: list[Character]) -> int:
    """Add the characters up to the closing quote, and return the position after it. Raises Unreadable."""
    while position < len(line):
        character, following = line[position], line[position + 1 : position + 2]
        if character == '"':
            return position + 1
        if character == "`" or (character == "$" and following != '"'):
            raise Unreadable(f"The command holds {REFUSED_CHARACTERS[character]}.")
        if character == "\\" and following and following in '$`"\\':
            character = following
            position += 1
        characters.append(Character(character, True))
        position += 1
    raise Unreadable("The command holds a quote that is not closed.")


def _check_plain(line: str, start: int, position: int) -> None:
    """Check a character without quotes in the word that begins at `start`. Raises Unreadable."""
    character = line[position]
    if character in REFUSED_CHARACTERS:
        raise Unreadable(f"The command holds {REFUSED_CHARACTERS[character]}.")
    if character == "#" and position == start:
        raise Unreadable("The command holds a comment.")
    if character == "~" and (position == start or line[position - 1] in "=:"):
        raise Unreadable("The command holds the path of a home folder.")
    if character == "=" and position == start and not LONE_EQUALS.match(line, start):
        raise Unreadable("The command holds a word that some shells take for the path of a program.")


def _check_program(words: list[ShellWord]) -> None:
    """Check the name of the program. Raises Unreadable."""
    if not words:
        raise Unreadable("The command is empty, or a part of its chain is.")
    name = words[0].text
    if not PROGRAM_NAME.fullmatch(name):
        raise Unreadable(f"The command names its program in a way that is not certain: {name!r}.")
    if name in RESERVED_WORDS or name in INDIRECT_PROGRAMS or (name == "command" and not _only_looks_up(words)):
        raise Unreadable(f"The command uses {name!r}, which may run or change anything.")


def _only_looks_up(words: list[ShellWord]) -> bool:
    return len(words) > 1 and words[1].text in ("-v", "-V")
