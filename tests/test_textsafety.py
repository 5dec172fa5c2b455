"""The one rule about invisible characters, over all of Unicode."""

import re
import sys
import unicodedata
from collections.abc import Callable

import pytest

from graph import sanitize
from textsafety import HIDDEN_CATEGORIES, escape_invisible

ALL_CHARACTERS = [*map(chr, range(sys.maxunicode + 1))]
SHOWN_AS_NOTHING = re.compile("VARIATION SELECTOR|HANGUL.* FILLER|GRAPHEME JOINER|VOWEL INHERENT")
LISTED_BEFORE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""The union of the two lists that the service and the IDE had."""


def must_be_escaped(char: str) -> bool:
    if unicodedata.category(char) in HIDDEN_CATEGORIES:
        return char not in "\t\n"
    return SHOWN_AS_NOTHING.search(unicodedata.name(char, "")) is not None


def test_of_all_unicode_what_cannot_be_seen_is_escaped_and_nothing_else() -> None:
    hidden = [char for char in ALL_CHARACTERS if must_be_escaped(char)]
    shown = "".join(sorted({*ALL_CHARACTERS} - {*hidden}))
    assert escape_invisible(shown) == shown
    # The spaces make each character a word of its own, so that none is escaped for its neighbour's sake.
    assert escape_invisible(" ".join(hidden)) == " ".join(hidden).encode("unicode_escape").decode()


def test_what_service_or_ide_escaped_before_is_still_escaped() -> None:
    assert [char for char in ALL_CHARACTERS if LISTED_BEFORE.match(char) and escape_invisible(char) == char] == []


@pytest.mark.parametrize("escape", [escape_invisible, sanitize.escape_invisible])
def test_escapes_are_those_of_python(escape: Callable[[str], str]) -> None:
    hidden = "\x1b\x7f\x9b\u061c\u180e\u2028\u202e\u206a\u206f\ufe0f\ufff9\ufffb\ud800\U000e0041\U000e0100"
    assert escape(f"a{hidden}б") == f"a{hidden.encode('unicode_escape').decode()}б"


@pytest.mark.parametrize(
    "text",
    [
        *("", "plain", "two\nlines\tand a tab", "\\x1b is written out", "Ёлка, «кавычки» — тире"),
        *("cafe\u0301, и\u0306, क्षि", "no\u00a0break\u2009thin\u3000wide", "世界", "עברית العربية", "👋🏽 😀 ☕"),
    ],
)
def test_text_that_can_be_read_stays_as_it_is(text: str) -> None:
    assert escape_invisible(text) == text


def test_a_hidden_character_is_found_within_a_word() -> None:
    assert escape_invisible("при\u200bвет\u00a0мир") == "при\\u200bвет\u00a0мир"


def test_values_are_escaped_in_all_their_parts() -> None:
    value = {"pa\u202eth": ["a\u200b", {"n": 1, "none": None}], "ok": True}
    assert sanitize.escape_invisible(value) == {"pa\\u202eth": ["a\\u200b", {"n": 1, "none": None}], "ok": True}
