"""Recognize the awk scripts that only read their input and print, within bounds of memory and time."""

from collections.abc import Sequence
from functools import lru_cache

from policy.languages.awk_growth import measure_output
from policy.languages.awk_tokens import (
    KEYWORDS,
    Brackets,
    InvalidScript,
    Token,
    pair_brackets,
    read_tokens,
    token_at,
)
from policy.languages.awk_values import is_variable
from policy.languages.escapes import has_control_escape
from policy.languages.formats import is_safe_awk_format
from policy.languages.regexes import is_bounded_regex
from policy.limits import MAX_FIELD, MAX_SCRIPT_LENGTH

ASSIGNMENTS = frozenset({"=", "+=", "-=", "*=", "%=", "++", "--"})
PATTERN_ARGUMENT = {"sub": 0, "gsub": 0, "match": 1, "split": 2}
"""The argument of a function that is a pattern."""


@lru_cache(maxsize=16)  # a line is read three times, for each kind of client
def measure_awk(script: str, *, is_literal: bool = False) -> int | None:
    """Return the factor by which the script may lengthen its input.

    None if it does more than read its files and print, need not end, or has no bound of memory or time.
    """
    if len(script) > MAX_SCRIPT_LENGTH or not script.strip():
        return None
    try:
        tokens = read_tokens(script, is_literal=is_literal)
    except InvalidScript:
        return 1
    brackets = pair_brackets(tokens) if tokens is not None else None
    if tokens is None or brackets is None or not _has_balanced_output(tokens):
        return None
    if not all(check(tokens, brackets) for check in CHECKS):
        return None
    return measure_output(tokens, brackets)


def _has_balanced_output(tokens: Sequence[Token]) -> bool:
    """Return whether no `>` can be a redirection: one inside braces may be."""
    depth = 0
    for token in tokens:
        if token.kind != "mark":
            continue
        depth += {"{": 1, "}": -1}.get(token.text, 0)
        if token.text.startswith(">") and depth:
            return False
    return depth == 0 or not any(token.text.startswith(">") for token in tokens)


def _has_bounded_texts(tokens: Sequence[Token], brackets: Brackets) -> bool:
    """Return whether every expression, and every string that may be used as one, is bounded and can be printed."""
    return all(is_bounded_regex(token.text) for token in tokens if token.kind in ("regex", "string")) and not any(
        has_control_escape(token.text) for token in tokens if token.kind == "string"
    )


def _has_literal_patterns(tokens: Sequence[Token], brackets: Brackets) -> bool:
    """Return whether patterns and formats are literals: from data they could take any memory or time."""
    for index, token in enumerate(tokens):
        following = token_at(tokens, index + 1)
        if token.text in ("~", "!~") and token.kind == "mark" and following.kind not in ("regex", "string"):
            return False
        if token.kind == "name" and token.text in ("printf", "sprintf"):
            first = token_at(tokens, index + 2) if following.text == "(" else following
            if first.kind != "string" or not is_safe_awk_format(first.text):
                return False
        if token.kind == "name" and token.text in PATTERN_ARGUMENT and following.text == "(":
            arguments = brackets.arguments(index + 1)
            start, end = (arguments + [(0, 1)] * 3)[PATTERN_ARGUMENT[token.text]]
            is_syntax_error = start == end or (end - start == 1 and tokens[start].kind == "mark")
            if start and not is_syntax_error and (end - start != 1 or tokens[start].kind not in ("regex", "string")):
                return False
    return True


def _names_small_fields(tokens: Sequence[Token], brackets: Brackets) -> bool:
    """Return whether every field has a small number, or is counted from the last: some awks create all below it."""
    for index, token in enumerate(tokens):
        if token != Token("mark", "$"):
            continue
        following = token_at(tokens, index + 1)
        if following == Token("mark", "("):
            inner = tokens[index + 2 : min(brackets.closer.get(index + 1, len(tokens)), index + 8)]
            if not all(part.text in ("NF", "+", "-") or is_small_number(part) for part in inner):
                return False
        elif not is_small_number(following) and following != Token("name", "NF"):
            return False
    return True


def is_small_number(token: Token) -> bool:
    return token.kind == "number" and len(token.text) <= len(str(MAX_FIELD))


def _assigns_known_targets(tokens: Sequence[Token], brackets: Brackets) -> bool:
    """Return whether only variables, their elements, and fields with a small number or the last one are assigned."""
    for index, token in enumerate(tokens):
        if token.kind != "mark" or token.text not in ASSIGNMENTS:
            continue
        before, after = token_at(tokens, index - 1), token_at(tokens, index + 1)
        is_step = token.text in ("++", "--")
        if (
            is_step
            and _ends_operand(before)
            and (after.kind in ("name", "number", "string") or after.text in ("$", "("))
        ):
            return False  # it could belong to either side
        if is_step and not _ends_operand(before):
            is_target = after.text == "$" or is_variable(after)
        elif token_at(tokens, index - 2).text == "$":
            is_target = is_small_number(before) or (before.text == "NF" and not is_step)
        elif before.kind == "name":
            is_literal = after.kind == "string" or after.text in (",", ";", "}")  # a syntax error without the quotes
            is_target = is_variable(before) or (before.text in ("FS", "OFS") and token.text == "=" and is_literal)
        else:
            is_target = before == Token("mark", "]")
        if not is_target:
            return False
    return True


def _starts_operand(token: Token) -> bool:
    return token.kind in ("name", "number", "string") or token.text in ("$", "(")


def _ends_operand(token: Token) -> bool:
    return (
        (token.kind == "name" and token.text not in KEYWORDS)
        or token.kind in ("number", "string")
        or token.text in (")", "]")
    )


CHECKS = (_has_bounded_texts, _has_literal_patterns, _names_small_fields, _assigns_known_targets)
