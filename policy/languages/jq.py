"""Recognize the jq filters that only select and format."""

import re

from policy.languages.regexes import is_bounded_regex
from policy.limits import MAX_JQ_DIGITS, MAX_SCRIPT_LENGTH

TOKEN = re.compile(
    r"""[ \t]*(?:(?P<field>\.[A-Za-z_]\w*)|(?P<name>[A-Za-z_]\w*)|(?P<format>@[a-z0-9]+)|(?P<number>\d+(?:\.\d+)?)
    |(?P<quote>")|(?P<mark>\?//|//|==|!=|<=|>=|\.\.|[.,:;|<>()\[\]{}?/%+-]))[ \t]*""",
    re.VERBOSE,
)
"""No `=` beside a comparison: an assignment to an index takes memory. No `*`: it repeats texts. No variables."""
WORDS = frozenset(
    {
        *("add", "all", "and", "any", "arrays", "ascii_downcase", "ascii_upcase", "booleans", "capture", "contains"),
        *("elif", "else", "empty", "end", "endswith", "error", "explode", "false", "first", "flatten", "floor"),
        *(
            "from_entries",
            "fromjson",
            "group_by",
            "has",
            "if",
            "in",
            "inside",
            "isvalid",
            "iterables",
        ),
        *("join", "keys", "keys_unsorted", "last", "leaf_paths", "length", "ltrimstr", "map", "map_values", "max"),
        *("max_by", "min", "min_by", "not", "nth", "null", "nulls", "numbers", "objects", "or", "paths", "reverse"),
        *("round", "rtrimstr", "scalars", "select", "sort", "sort_by", "split", "startswith", "strings"),
        *("test", "then", "to_entries", "tojson", "tonumber", "tostring", "transpose", "true", "type", "unique"),
        *("unique_by", "utf8bytelength", "values", "with_entries"),
    }
)
"""Functions that read no environment and no other file, and end after one pass over their input."""
DENIED = frozenset(
    {
        *("as", "catch", "combinations", "debug", "def", "delpaths", "env", "foreach", "fromstream", "get_search_list"),
        *(
            "getpath",
            "gsub",
            "halt",
            "halt_error",
            "implode",
            "import",
            "include",
            "index",
            "indices",
            "input",
            "input_filename",
            "inputs",
        ),
        *(
            "label",
            "limit",
            "ltrimstr",
            "modulemeta",
            "range",
            "recurse",
            "recurse_down",
            "reduce",
            "repeat",
            "rindex",
            "scan",
        ),
        *("setpath", "splits", "stderr", "sub", "tostream", "truncate_stream", "try", "until", "walk", "while"),
    }
)
"""Words that read the environment or other files, need not end, or have no bound."""
ESCAPES = frozenset('"\\/bfnrtu')


def is_safe_jq(script: str, *, is_literal: bool = False) -> bool:
    """Return whether the filter only selects and formats its input.

    A literal filter is what a client passes that drops the inner quotes: a name that jq does not define is an error.
    """
    if len(script) > MAX_SCRIPT_LENGTH or not script.strip():
        return False
    return _scan(script, 0, depth=0, is_literal=is_literal) == len(script)


def _scan(script: str, position: int, *, depth: int, is_literal: bool) -> int:
    """Return the position behind the filter that begins here: the end, or `)` of an interpolation; -1 if unknown."""
    opened: list[str] = []
    last = ""
    while position < len(script):
        if depth and script[position] == ")" and not opened:
            return position
        token = TOKEN.match(script, position)
        if token is None:
            is_syntax_error = script[position] == "\\" and not depth  # jq refuses the whole filter
            return len(script) if is_syntax_error else -1
        position = token.end()
        if token["quote"]:
            position = _scan_string(script, token.end("quote"), depth=depth, is_literal=is_literal)
            if position < 0:
                return -1
        elif not _is_known(token, is_key=opened[-1:] == ["{"] and last in ("{", ","), is_literal=is_literal):
            return -1
        last = token["mark"] or ""
        if last in ("(", "[", "{"):
            opened.append(last)
        elif last in (")", "]", "}") and (not opened or opened.pop() + last not in ("()", "[]", "{}")):
            return -1
    return -1 if depth or opened else position


def _is_known(token: re.Match[str], *, is_key: bool, is_literal: bool) -> bool:
    """Return whether a name is a listed function, or a key of an object, and a number is small."""
    if token["name"]:
        return is_key or token["name"] in WORDS or (is_literal and token["name"] not in DENIED)
    return not token["number"] or len(token["number"]) <= MAX_JQ_DIGITS


def _scan_string(script: str, position: int, *, depth: int, is_literal: bool) -> int:
    """Return the position behind the closing quote; -1 if the text is not proven harmless."""
    start = position
    while position < len(script):
        character = script[position]
        if character == '"':
            if not is_bounded_regex(script[start:position], backtracks=True):
                return -1
            return position + 1 + len(script[position + 1 :]) - len(script[position + 1 :].lstrip(" \t"))
        position += 1
        if character == "\\":
            following = script[position : position + 1]
            position += 1
            if following == "(" and depth < 3:  # deeper ones are in no ordinary filter
                position = _scan(script, position, depth=depth + 1, is_literal=is_literal)
                if position < 0:
                    return -1
                position += 1
            elif following not in ESCAPES or not following:
                return -1
    return -1
