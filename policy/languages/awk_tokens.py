"""Read an awk script as tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from policy.limits import MAX_VARIABLE_LENGTH

TOKEN = re.compile(
    r"""[ \t]*(?:(?P<string>"(?:[^"\\]|\\.)*+")|(?P<number>\d++(?:\.\d++)?+)|(?P<name>[A-Za-z_]\w*+)
    |(?P<mark>&&|\|\||!~|[=!<>]=|[-+*%]=|\+\+|--|[-+*%/=!<>~,;?:$(){}\[\]]))[ \t]*""",
    re.VERBOSE,
)
REGEX = re.compile(r"""[ \t]*/((?:[^/\\\[\]"\s]|\\[^/"\s]|[ ])+)/[ \t]*""")
BEFORE_REGEX = {"~", "!~", "!", ",", "&&", "||", "("}
"""The tokens, beside the beginning, after which a slash starts an expression. After others programs differ."""
FUNCTIONS = frozenset(
    {"length", "substr", "index", "split", "match", "sub", "gsub", "tolower", "toupper", "sprintf", "int"}
)
KEYWORDS = frozenset({"BEGIN", "END", "print", "printf", "in", "next", "if", "else", "exit", "for"})
VARIABLES = frozenset({"NR", "NF", "FNR", "FS", "OFS", "FILENAME"})
RESERVED = frozenset(
    {
        *("getline", "system", "close", "fflush", "while", "do", "function", "func", "delete", "return", "nextfile"),
        *("switch", "case", "default", "break", "continue", "include", "load"),
    }
)


class Token(NamedTuple):
    kind: str
    text: str
    """Without the quotes of a string and the slashes of an expression."""


END = Token("end", "")


@dataclass
class Brackets:
    """The pairs of brackets of a script, by the index of their tokens, and the commas inside of each."""

    opener: dict[int, int] = field(default_factory=dict)
    closer: dict[int, int] = field(default_factory=dict)
    commas: dict[int, list[int]] = field(default_factory=dict)

    def arguments(self, start: int) -> list[tuple[int, int]]:
        """Return where each argument of the call begins and ends, whose parenthesis is at `start`."""
        ends = [*self.commas.get(start, []), self.closer.get(start, start + 1)]
        return list(zip([start + 1, *(comma + 1 for comma in ends[:-1])], ends, strict=True))


def pair_brackets(tokens: Sequence[Token]) -> Brackets | None:
    """Return the pairs; None if they do not match. Some may stay open."""
    brackets, opened = Brackets(), list[int]()
    for index, token in enumerate(tokens):
        if token.kind != "mark":
            continue
        if token.text in ("(", "[", "{"):
            opened.append(index)
        elif token.text in (")", "]", "}"):
            if not opened or tokens[opened[-1]].text + token.text not in ("()", "[]", "{}"):
                return None
            brackets.opener[index] = opened.pop()
            brackets.closer[brackets.opener[index]] = index
        elif token.text == "," and opened:
            brackets.commas.setdefault(opened[-1], []).append(index)
    return brackets


class InvalidScript(Exception):
    """Every awk refuses the script as a whole, so it does no harm."""


def read_tokens(script: str, *, is_literal: bool) -> list[Token] | None:
    """Return the tokens; None if the text has a second reading or names something that is not listed.

    Raises InvalidScript for a backslash or a format outside of a text, as a client passes them that drops the quotes.
    """
    tokens: list[Token] = []
    position = 0
    while position < len(script):
        last = tokens[-1].text if tokens and tokens[-1].kind == "mark" else "" if tokens else "~"
        regex = REGEX.match(script, position) if last in BEFORE_REGEX else None
        found = regex or TOKEN.match(script, position)
        if found is None:
            if is_literal and script[position] == "\\":
                raise InvalidScript
            return None
        position = found.end()
        kind = "regex" if regex else found.lastgroup or ""
        if is_literal and not regex and found["mark"] == "%":
            _refuse_bare_format(tokens)
        token = Token(kind, found[1] if regex else found[kind][1:-1] if kind == "string" else found[kind])
        if kind == "name" and not _is_known(token.text, script[position : position + 1]):
            return None
        if token == Token("mark", "/") and not _divides(tokens, script[position : position + 1]):
            return None
        tokens.append(token)
    return tokens


def _refuse_bare_format(tokens: Sequence[Token]) -> None:
    """Raise InvalidScript if a percent sign behind these tokens begins the format of printf, without its quotes."""
    before = [token.text for token in tokens[-2:]]
    if before[-1:] == ["printf"] or before in (["printf", "("], ["sprintf", "("]):
        raise InvalidScript


def _divides(tokens: Sequence[Token], following: str) -> bool:
    """Return whether a slash behind these tokens is a division in every awk: it follows a number or a variable."""
    last = tokens[-1] if tokens else END
    is_operand = last.kind == "number" or (last.kind == "name" and last.text not in FUNCTIONS | KEYWORDS)
    return (is_operand or last == Token("mark", "]")) and following not in ("=", "/")


def _is_known(name: str, following: str) -> bool:
    if name in KEYWORDS | FUNCTIONS | VARIABLES:
        return True
    return name.islower() and len(name) <= MAX_VARIABLE_LENGTH and name not in RESERVED and following != "("


def token_at(tokens: Sequence[Token], index: int) -> Token:
    return tokens[index] if 0 <= index < len(tokens) else END
