"""Read an awk script as tokens."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from policy.limits import MAX_VARIABLE_LENGTH

TOKEN = re.compile(
    r"""[ \t]*(?:(?P<string>"(?:[^"\\]|\\.)*+")|(?P<number>\d++(?:\.\d++)?+)|(?P<name>[A-Za-z_]\w*+)
    |(?P<mark>&&|\|\||!~|[=!<>]=|[-+*%]=|\+\+|--|[-+*%=!<>~,;?:$(){}\[\]]))[ \t]*""",
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
FOR_IN = re.compile(r"\bfor\s*\(\s*[a-z]\w*\s+in\s+[a-z]\w*\s*\)")
"""The only loop that is sure to end."""


class Token(NamedTuple):
    kind: str
    text: str
    """Without the quotes of a string and the slashes of an expression."""


END = Token("end", "")


def read_tokens(script: str) -> list[Token] | None:
    """Return the tokens; None if the text has a second reading or names something that is not listed."""
    tokens: list[Token] = []
    position = 0
    while position < len(script):
        last = tokens[-1].text if tokens and tokens[-1].kind == "mark" else "" if tokens else "~"
        regex = REGEX.match(script, position) if last in BEFORE_REGEX else None
        found = regex or TOKEN.match(script, position)
        if found is None:
            return None
        position = found.end()
        kind = "regex" if regex else found.lastgroup or ""
        token = Token(kind, found[1] if regex else found[kind].strip('"') if kind == "string" else found[kind])
        if kind == "name" and not _is_known(token.text, script[position : position + 1]):
            return None
        tokens.append(token)
    return tokens


def _is_known(name: str, following: str) -> bool:
    if name in KEYWORDS | FUNCTIONS | VARIABLES:
        return name != "for"
    return name.islower() and len(name) <= MAX_VARIABLE_LENGTH and name not in RESERVED and following != "("


def token_at(tokens: Sequence[Token], index: int) -> Token:
    return tokens[index] if 0 <= index < len(tokens) else END
