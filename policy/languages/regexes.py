"""Bound the cost of a regular expression and of a pattern of names, whatever dialect reads it."""

import re

from policy.limits import MAX_REGEX_LENGTH, MAX_REPETITIONS, MAX_STARS

INTERVAL = re.compile(r"\\?\{(\d{0,9})(?:,(\d{0,9}))?\\?\}")
"""`{m}`, `{m,}`, `{m,n}`, with or without the backslashes of a basic expression."""
REPEATED_GROUP = re.compile(r"\)[*+{?]")
"""A group that is repeated takes exponential time in engines that backtrack (Perl's, jq's)."""
BACK_REFERENCE = re.compile(r"\\[1-9]")
"""Every engine backtracks for these."""


def is_bounded_regex(text: str, *, backtracks: bool = False) -> bool:
    """Return whether the expression is short and its intervals are small.

    With `backtracks` it may have no repeated group either.
    """
    if len(text) > MAX_REGEX_LENGTH or BACK_REFERENCE.search(text):
        return False
    if backtracks and REPEATED_GROUP.search(text):
        return False
    product = 1
    for least, most in INTERVAL.findall(text):
        if len(most or least) > len(str(MAX_REPETITIONS)):
            return False
        product *= max(1, int(most or least or 1))
        if product > MAX_REPETITIONS:
            return False
    return True


def is_bounded_glob(text: str) -> bool:
    """Return whether a glob has few enough stars to be matched in little time."""
    return text.count("*") + text.count("+(") <= MAX_STARS
