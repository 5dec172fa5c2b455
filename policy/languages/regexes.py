"""Bound the cost of a regular expression and of a pattern of names, whatever dialect reads it."""

import re

from policy.limits import MAX_CHOICES, MAX_REGEX_LENGTH, MAX_REPETITIONS, MAX_STARS, MAX_UNBOUNDED, MAX_WIDE_REPETITIONS

INTERVAL = re.compile(r"([0-9]{1,3}+)?+(,)?+([0-9]{1,3}+)?+\\?+\}")
"""The rest of `{m}`, `{m,}`, `{,n}` or `{m,n}`, with or without the backslash of a basic expression."""
BACK_REFERENCE = re.compile(r"\\[1-9]")
"""Every engine backtracks for these."""
PERL_ESCAPES = frozenset("dDwWsSbBhntrK")
"""Escaped letters that Perl's engine may get. Others begin a recursion, a quoted part or a condition."""
PERL_GROUP = re.compile(r"\(\?(?!:|=|!|<=|<!|i\))|\(\*")
"""A group of Perl's that is not listed: recursion, comments, the option `x` that changes the meaning of blanks."""
NARROW_ATOM = re.compile(r"\\[^A-Za-z]|[^\\.\])]|\\d")
"""A character, or an escape for one: its repetition adds few states to an automaton."""


def is_bounded_regex(text: str, *, backtracks: bool = False) -> bool:
    """Return whether the expression is short and its intervals are small.

    With `backtracks` it must also fit an engine such as Perl's: few choices, and no repeated group.
    """
    if len(text) > MAX_REGEX_LENGTH or BACK_REFERENCE.search(text):
        return False
    if backtracks and not _fits_perl(text):
        return False
    return "{" not in text or _has_small_intervals(text)


def _has_small_intervals(text: str) -> bool:
    """Return whether the states of an automaton stay few: repeated groups multiply, others add."""
    product, wide, narrow = 1, 0, 0
    before, *rests = text.split("{")
    for rest in rests:
        if rest.lstrip(" \t")[:1] in tuple("0123456789,"):
            most = _read_interval(rest)
            atom = before.removesuffix("\\")[-2:]
            if most is None:
                return False
            if atom[-1:] in (")", "*", "+", "?", "}", ""):
                product *= most
            elif NARROW_ATOM.fullmatch(atom[-1:] if atom[-2:-1] != "\\" else atom):
                narrow += most
            else:
                wide += most
        before = rest
    return product * max(1, wide + narrow) <= MAX_REPETITIONS and product * wide <= MAX_WIDE_REPETITIONS


def _read_interval(rest: str) -> int | None:
    """Return the upper bound of an interval from the text behind its brace; None if it is no plain one."""
    found = INTERVAL.match(rest)
    return max(1, int(found[3] or found[1] or 1)) if found and (found[1] or found[2]) else None


def _fits_perl(text: str) -> bool:
    """Return whether an engine that backtracks has few ways to match: listed syntax and bounded choices."""
    if PERL_GROUP.search(text):
        return False
    choices, unbounded, position, last = 1, 0, 0, ""
    while position < len(text):
        character = text[position]
        if character == "\\":
            following = text[position + 1 : position + 2]
            if following.isalnum() and following not in PERL_ESCAPES:
                return False
            position, last = position + 2, "\\"
            continue
        if character in ("*", "+", "{") and last == ")":
            return False
        if character in ("*", "+") and last not in ("*", "?", "}"):
            unbounded += 1
        elif character == "{":
            found = INTERVAL.match(text, position + 1)
            unbounded += bool(found and found[2] and not found[3])
            choices *= 1 + (int(found[3]) if found and found[2] and found[3] else 0)
        elif (character == "?" and last != "(") or character == "|":
            choices *= 2
        position, last = position + 1, character
    return choices <= MAX_CHOICES and unbounded <= MAX_UNBOUNDED


def is_finite_regex(text: str) -> bool:
    """Return whether nothing in the expression is repeated without a bound, for programs that try every position."""
    return is_bounded_regex(text) and not any(character in text for character in "*+{")


def is_bounded_glob(text: str) -> bool:
    """Return whether a glob has few enough stars to be matched in little time."""
    return text.count("*") + text.count("+(") <= MAX_STARS
