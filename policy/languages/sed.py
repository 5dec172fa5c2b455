"""Recognize the sed scripts that only print, delete, substitute and quit."""

from functools import lru_cache

from policy.languages.regexes import is_bounded_regex
from policy.languages.text_growth import TextGrowth
from policy.limits import MAX_SCRIPT_LENGTH

DELIMITERS = "/|#,"
REGEX_ESCAPES = frozenset(".*[]^$/|#,(){}+?\\-nt&\"' :=%@!;~<>sSwWbB_")
"""Escapes with one length in every sed. Not `\\c`, `\\d`, `\\o`, `\\x`, which take more characters in some."""
REPLACEMENT_ESCAPES = frozenset("&\\/|#,nt.*[]^$(){}+?-\"' :=%@!;~<>0123456789")
POSIX_CLASSES = frozenset(
    {"alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "xdigit"}
)
SUBSTITUTE_FLAGS = frozenset("gpIi")
PRINTED_COPIES = {"p": 1, "l": 5, "=": 0}
"""The commands that print, and how often: `l` writes a byte as four, and folds the line."""
LINE_NUMBER_BYTES = 1
"""Bytes that `=` prints for each byte: lines have several bytes. Chosen, not measured."""


class Refused(Exception):
    """The script is not proven to be harmless."""


@lru_cache(maxsize=16)  # a line is read three times, for each kind of client
def measure_sed(script: str) -> int | None:
    """Return the factor by which the script may lengthen its input.

    None if it does not have one reading in every sed, or does more than print.
    """
    if len(script) > MAX_SCRIPT_LENGTH:
        return None
    scanner = _Scanner(script)
    try:
        return scanner.measure() if scanner.scan() else None
    except (Refused, IndexError):
        return None


class _Scanner:
    def __init__(self, script: str) -> None:
        self._script = script
        self._position = 0
        self._line = TextGrowth()
        self._printed = 0

    def measure(self) -> int:
        """Return the bytes of output for a byte of input: what was printed on the way, and the line itself."""
        return self._printed + self._line.total

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
        elif name in PRINTED_COPIES:
            self._printed += PRINTED_COPIES[name] * self._line.total + LINE_NUMBER_BYTES
        elif name in ("q", "Q"):
            self._scan_digits(optional=True)
        elif name != "d":
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
            if character in ("[", "\\", delimiter) and not (character == "[" and self._skip_class()):
                raise Refused

    def _skip_class(self) -> bool:
        """Skip the rest of a class such as `[:space:]`; return whether it is one that each sed knows."""
        name, colon, _ = self._script[self._position + 1 : self._position + 12].partition(":]")
        if self._peek() != ":" or not colon or name not in POSIX_CLASSES:
            return False
        self._position += len(name) + 3
        return True

    def _scan_substitution(self) -> None:
        delimiter = self._next()
        if delimiter not in DELIMITERS:
            raise Refused
        regex = self._scan_regex(delimiter)
        copies, literals = self._scan_replacement(delimiter)
        flags = self._scan_flags()
        self._line.substitute(regex, copies, literals, everywhere="g" in flags)
        if "p" in flags:
            self._printed += self._line.total

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
