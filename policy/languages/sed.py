"""Recognize the sed scripts that only print, delete, substitute and quit."""

from policy.languages.regexes import is_bounded_regex
from policy.limits import MAX_GROWTH, MAX_SCRIPT_LENGTH

DELIMITERS = "/|#,"
REGEX_ESCAPES = frozenset(".*[]^$/|#,(){}+?\\-nt&\"' :=%@!;~<>sSwWbB_")
"""Escapes with one length in every sed. Not `\\c`, `\\d`, `\\o`, `\\x`, which take more characters in some."""
REPLACEMENT_ESCAPES = frozenset("&\\/|#,nt.*[]^$(){}+?-\"' :=%@!;~<>0123456789")
SUBSTITUTE_FLAGS = frozenset("gpIi")
PLAIN_COMMANDS = frozenset("pdl=")


class Refused(Exception):
    """The script is not proven to be harmless."""


def is_safe_sed(script: str) -> bool:
    """Return whether the script has one reading in every sed, and only prints."""
    if len(script) > MAX_SCRIPT_LENGTH:
        return False
    try:
        return _Scanner(script).scan()
    except (Refused, IndexError):
        return False


class _Scanner:
    def __init__(self, script: str) -> None:
        self._script = script
        self._position = 0
        self._growth = 1

    def _peek(self) -> str:
        return self._script[self._position : self._position + 1]

    def _next(self) -> str:
        """Return the next character. Raises IndexError at the end."""
        self._position += 1
        return self._script[self._position - 1]

    def _skip_blanks(self) -> None:
        while self._peek() in (" ", "\t"):
            self._position += 1

    def scan(self) -> bool:
        """Return whether the whole script is a list of known commands."""
        while True:
            self._skip_blanks()
            if not self._peek():
                return bool(self._script.strip())
            self._scan_command()
            self._skip_blanks()
            if self._peek() and self._next() != ";":
                return False

    def _scan_command(self) -> None:
        if self._scan_address() and self._peek() == ",":
            self._next()
            if self._peek() == "+":
                self._next()
                self._scan_digits()
            elif not self._scan_address():
                raise Refused
        self._skip_blanks()
        if self._peek() == "!":
            self._next()
            self._skip_blanks()
        name = self._next()
        if name == "s":
            self._scan_substitution()
        elif name in ("q", "Q"):
            self._scan_digits(optional=True)
        elif name not in PLAIN_COMMANDS:
            raise Refused

    def _scan_address(self) -> bool:
        """Read one address; return whether there was one."""
        if self._peek() == "$":
            self._next()
        elif self._peek().isdigit():
            self._scan_digits()
            if self._peek() == "~":
                self._next()
                self._scan_digits()
        elif self._peek() == "/":
            self._next()
            self._scan_regex("/")
            if self._peek() == "I":
                self._next()
        else:
            return False
        return True

    def _scan_digits(self, *, optional: bool = False) -> None:
        start = self._position
        while self._peek().isascii() and self._peek().isdigit():
            self._position += 1
        if self._position == start and not optional:
            raise Refused

    def _scan_regex(self, delimiter: str) -> str:
        """Read an expression up to its delimiter and return it."""
        start = self._position
        while (character := self._next()) != delimiter:
            if character == "\\":
                if self._next() not in REGEX_ESCAPES:
                    raise Refused
            elif character == "[":
                self._scan_bracket(delimiter)
            elif character == "]":
                raise Refused
        text = self._script[start : self._position - 1]
        if not is_bounded_regex(text):
            raise Refused
        return text

    def _scan_bracket(self, delimiter: str) -> None:
        """Read a bracket expression with one reading: no delimiter, bracket or backslash in it, and not empty.

        POSIX takes `]` behind `[` or `[^` for a member. Programs differ about a backslash.
        """
        if self._peek() == "^":
            self._next()
        if self._peek() == "]":
            raise Refused
        while (character := self._next()) != "]":
            if character in ("[", "\\", delimiter):
                raise Refused

    def _scan_substitution(self) -> None:
        delimiter = self._next()
        if delimiter not in DELIMITERS:
            raise Refused
        regex = self._scan_regex(delimiter)
        copies, literals = self._scan_replacement(delimiter)
        flags = self._scan_flags()
        per_match = copies + literals / max(1, _shortest_match(regex)) if "g" in flags else copies
        self._growth = int(self._growth * max(1, per_match) + 0.999)
        if self._growth > MAX_GROWTH:
            raise Refused

    def _scan_replacement(self, delimiter: str) -> tuple[int, int]:
        """Read a replacement; return how often it copies (a part of) the match, and its other characters."""
        copies = literals = 0
        while (character := self._next()) != delimiter:
            if character == "&":
                copies += 1
            elif character != "\\":
                literals += 1
            elif (escaped := self._next()) not in REPLACEMENT_ESCAPES:
                raise Refused
            elif escaped.isdigit():
                copies += 1
            else:
                literals += 1
        return copies, literals

    def _scan_flags(self) -> set[str]:
        flags: set[str] = set()
        while self._peek() in SUBSTITUTE_FLAGS and self._peek():
            flags.add(self._next())
        self._scan_digits(optional=True)
        while self._peek() in SUBSTITUTE_FLAGS and self._peek():
            flags.add(self._next())
        return flags


def _shortest_match(regex: str) -> int:
    """Return a lower bound of the characters that the expression matches; 0 if it has any operator."""
    return 0 if any(character in regex for character in "*?{|\\[^$+(") else len(regex)
