"""Recognize the jq filters that only select and format, and bound how much longer their output may be."""

import re
from dataclasses import dataclass
from functools import lru_cache

from policy.languages.jq_words import DECODERS, DENIED, EXPANSIONS, LEAVES, LITERAL_ARGUMENT, WORDS
from policy.languages.regexes import is_bounded_regex
from policy.limits import MAX_JQ_DIGITS, MAX_SCRIPT_LENGTH

TOKEN = re.compile(
    r"""[ \t]*(?:(?P<field>\.[A-Za-z_]\w*)|(?P<name>[A-Za-z_]\w*)|(?P<format>@[a-z0-9]+)|(?P<number>\d+(?:\.\d+)?)
    |(?P<quote>")|(?P<mark>\?//|//|==|!=|<=|>=|\.\.|[.,:;|<>()\[\]{}?/%+-]))[ \t]*""",
    re.VERBOSE,
)
"""No `=` beside a comparison: an assignment to an index takes memory. No `*`: it repeats texts. No variables."""
ESCAPES = frozenset('"\\/nrt')
"""Not `u`, `b` and `f`, which write control characters: a terminal obeys them."""
MAX_INTERPOLATIONS = 3
"""Interpolations inside of each other; deeper ones are in no ordinary filter."""


@dataclass
class Frame:
    """An open bracket, or the whole filter."""

    opener: str = ""
    is_index: bool = False
    function: str = ""
    """The name before the parenthesis."""
    streams: int = 0
    """Operands of the expression so far that may have many outputs: two of them make all the pairs."""
    is_stream: bool = False
    """The operand that is read may have many outputs."""
    has_stream: bool = False
    has_any: bool = False
    """A text has an interpolation."""

    def end_operand(self) -> None:
        """Count the operand that was read. Raises _Refused if two of the expression may have many outputs."""
        self.streams += self.is_stream
        if self.streams > 1:
            raise _Refused
        self.has_stream |= self.is_stream
        self.is_stream = False


class _Refused(Exception):
    """The filter is not proven to be harmless."""


@lru_cache(maxsize=16)  # a line is read three times, for each kind of client
def measure_jq(script: str, *, is_literal: bool = False) -> int | None:
    """Return the factor by which the filter may lengthen its input; None if it does more than select and format.

    A literal filter is what a client passes that drops the inner quotes: a name that jq does not define is an error.
    """
    if len(script) > MAX_SCRIPT_LENGTH or not script.strip():
        return None
    filter_ = _Filter(script, is_literal=is_literal)
    try:
        filter_.read(depth=0)
        return filter_.measure()
    except _Refused:
        return None


class _Filter:
    def __init__(self, script: str, *, is_literal: bool) -> None:
        self._script = script
        self._is_literal = is_literal
        self._position = 0
        self._frames = [Frame()]
        self._before, self._last = "", ""
        """The last two tokens."""
        self._factor, self._constant, self._copies, self._literals = 1, 0, 1, 0
        self._decodes, self._has_text = False, False

    def measure(self) -> int | None:
        """Return the growth of the whole filter, which has been read. Raises _Refused."""
        self._frames[0].end_operand()
        self._end_stage()
        is_unsafe = self._decodes and self._has_text
        return None if is_unsafe or self._last == ".." else self._factor + self._constant

    def _end_stage(self) -> None:
        """Fold the stage before a pipe into the growth: copies multiply, the texts of the filter add."""
        self._constant = self._constant * self._copies + self._literals * self._factor
        self._factor *= self._copies
        self._copies, self._literals = 1, 0

    def read(self, *, depth: int) -> None:
        """Read up to the end, or up to the parenthesis that ends an interpolation. Raises _Refused."""
        bottom = len(self._frames)
        while self._position < len(self._script):
            if depth and self._script[self._position] == ")" and len(self._frames) == bottom:
                return
            token = TOKEN.match(self._script, self._position)
            if token is None:
                if self._script[self._position] in ("\\", "^") and not depth:  # jq refuses the whole filter
                    self._position = len(self._script)
                    return
                raise _Refused
            self._position = token.end()
            if self._last == ".." and token["mark"] != "|":
                raise _Refused
            if token["quote"]:
                self._position = token.end("quote")
                self._read_string(depth)
            elif token["mark"]:
                self._read_mark(token["mark"])
            else:
                self._read_word(token)
            self._before, self._last = self._last, token[0].strip()
        if depth or (len(self._frames) != bottom and not self._is_literal):  # jq refuses an open bracket
            raise _Refused

    def _read_word(self, token: re.Match[str]) -> None:
        name = token["name"] or token["format"] or ""
        is_key = self._frames[-1].opener == "{" and self._last in ("{", ",")
        if token["number"] and len(token["number"]) > MAX_JQ_DIGITS:
            raise _Refused
        if token["name"] and is_key:
            self._literals += len(name) + 4
        elif token["name"] and name not in WORDS and (not self._is_literal or name in DENIED):
            raise _Refused
        elif name:
            self._copies *= EXPANSIONS.get(name, 1)
            self._decodes |= name in DECODERS
            if name in ("then", "else", "elif", "and", "or"):
                self._frames[-1].end_operand()
        if self._before == ".." and (self._last != "|" or name not in LEAVES):
            raise _Refused

    def _read_mark(self, mark: str) -> None:
        frame = self._frames[-1]
        if mark in ("(", "[", "{"):
            self._open(mark)
        elif mark in (")", "]", "}"):
            self._close(mark)
        elif mark == "..":
            frame.is_stream = True
        elif mark == "|":
            self._end_stage()
            frame.end_operand()
            frame.streams = 0
        elif mark not in (".", "?", ":"):
            self._copies += {",": 1, "+": 1, "/": 3, "-": 1}.get(mark, 0)
            frame.end_operand()
            if mark == "," and frame.opener != "{":
                frame.streams, frame.has_stream = 0, True

    def _open(self, mark: str) -> None:
        is_index = mark == "[" and bool(self._last) and self._last[-1] not in "|,;:([{+-/%<>="
        is_index = is_index and self._last not in ("then", "else", "elif", "and", "or", "if")
        function = self._last if mark == "(" and self._last.isidentifier() else ""
        if function in LITERAL_ARGUMENT and not self._starts_literal():
            raise _Refused
        self._copies += mark == "[" and not is_index
        self._frames.append(Frame(mark, is_index, function))

    def _starts_literal(self) -> bool:
        """Return whether a text follows, or what a client makes of it that drops its quotes: an invalid filter."""
        following = TOKEN.match(self._script, self._position)
        if following is None:
            return self._is_literal
        is_invalid = following["mark"] not in (None, ".", "..", "[", "{", "(") or bool(
            following["name"] and following["name"] not in WORDS
        )
        return following["quote"] is not None or (self._is_literal and is_invalid)

    def _close(self, mark: str) -> None:
        frame = self._frames.pop()
        frame.end_operand()
        if frame.opener + mark not in ("()", "[]", "{}"):
            raise _Refused
        outer = self._frames[-1]
        if frame.is_index:
            if frame.has_stream and outer.is_stream:
                raise _Refused
            outer.is_stream |= frame.has_stream or self._last == "["
        elif frame.opener != "[":
            outer.is_stream |= frame.has_stream

    def _read_string(self, depth: int) -> None:
        """Read a text up to its closing quote. Raises _Refused."""
        start, function = self._position, self._frames[-1].function if self._last == "(" else ""
        is_searched = function in LITERAL_ARGUMENT or self._last in ("==", "!=")
        interpolations = Frame()
        while self._position < len(self._script):
            character = self._script[self._position]
            self._position += 1
            if character == '"':
                text = self._script[start : self._position - 1]
                if function in LITERAL_ARGUMENT and not is_bounded_regex(text, backtracks=True):
                    raise _Refused
                self._has_text |= "\\" in text or self._last != "."
                self._frames[-1].is_stream |= interpolations.has_stream
                self._skip_blanks()
                return
            self._literals += not is_searched or function == "join"
            if character == "\\":
                self._read_escape(depth, interpolations, is_pattern=function in LITERAL_ARGUMENT)
        raise _Refused

    def _read_escape(self, depth: int, interpolations: Frame, *, is_pattern: bool) -> None:
        escape = self._script[self._position : self._position + 1]
        self._position += 1
        if escape != "(":
            if not escape or escape not in ESCAPES:
                raise _Refused
            return
        if depth >= MAX_INTERPOLATIONS or is_pattern:
            raise _Refused
        self._frames.append(Frame("("))
        self._copies += interpolations.has_any
        interpolations.has_any = True
        self.read(depth=depth + 1)
        self._position += 1
        frame = self._frames.pop()
        frame.end_operand()
        interpolations.is_stream = frame.has_stream
        interpolations.end_operand()

    def _skip_blanks(self) -> None:
        while self._script[self._position : self._position + 1] in (" ", "\t"):
            self._position += 1
