"""Escape characters that a reader cannot see, or that a terminal obeys instead of printing.

The service escapes what people read in approvals and audits, the IDE what it prints.
"""

import re
import unicodedata

HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Unicode's categories of characters without a shape of their own.

They are control, format (with the bidi controls and the tags), unassigned, private use, surrogate, and the line and
paragraph separators. A character that is newer than this Python's Unicode counts as unassigned.
"""

INVISIBLE_CHARACTERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""The letters and marks that Unicode shows as nothing: variation selectors, Hangul fillers, joiners, silent vowels.

Unicode calls them default-ignorable. `unicodedata` does not know that property, so they are listed here.
"""

BLANK_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})
"""Unicode's categories of characters that show nothing: those of `HIDDEN_CATEGORIES` that no font draws, and spaces."""

BLANK_CHARACTERS = frozenset("\u2800")
"""Further characters that show nothing: the Braille pattern without dots."""

SUSPECT_RUN = re.compile("[^\t\n -~\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
"""A run without printable ASCII, newlines, tabs and spaces of any width. Only such runs can hide something."""


def escape_invisible(text: str) -> str:
    """Return the text with hidden characters written as Python escapes, as in `\\x1b`; newlines and tabs stay."""
    return SUSPECT_RUN.sub(_escape_run, text)


def is_blank(char: str) -> bool:
    """Return whether a reader sees nothing of the character: spaces, controls, invisible characters."""
    return (
        unicodedata.category(char) in BLANK_CATEGORIES
        or char in BLANK_CHARACTERS
        or INVISIBLE_CHARACTERS.match(char) is not None
    )


def is_blank_text(text: str) -> bool:
    """Return whether a reader sees nothing of the text."""
    return all(map(is_blank, text))


def _escape_run(run: re.Match[str]) -> str:
    # A string is printable if it has no space and no character of a hidden category. This is much faster than to look
    # at each character, and most runs are words of a language.
    if run[0].isprintable() and not INVISIBLE_CHARACTERS.search(run[0]):
        return run[0]
    return "".join(char.encode("unicode_escape").decode() if _is_hidden(char) else char for char in run[0])


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in HIDDEN_CATEGORIES or INVISIBLE_CHARACTERS.match(char) is not None
