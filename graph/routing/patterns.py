"""Match words against the terms of prompts/keywords.yaml: rows of words, stems, endings, alternatives, gaps.

docs/keywords.md describes the notation.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

MAX_GAP_WORDS = 8
"""Words that `...` may stand for. Measured: with 8, 1,489 of the 1,531 requests in tests/corpus/requests.tsv go to the
right agent. With 2 they are 1,475, with 6 they are 1,486, with 10 to 20 they are 1,488."""
SENTENCE_ENDS = {".", "!", ";", ":", "\n", "?"}
"""The marks that end a sentence; a gap does not go beyond one."""

_IMPERATIVE_ENDING = re.compile(r"(?!\w*ли$)\w*(?:й|йте|ь|ьте|и|ите|[еи]м|[еи]мте|ти|ка)(?:ся|сь)?|")
"""The endings of a Russian imperative or infinitive."""


def normalize(text: str) -> str:
    """Return the text in the form that terms are compared in: no case, no ё, one kind of apostrophe."""
    return text.casefold().replace("ё", "е").replace("’", "'")


class Element(NamedTuple):
    """The alternatives at one place of a term: words, parts of words, or rows of words."""

    exact: frozenset[str]
    """Whole words."""
    stems: tuple[str, ...]
    """Beginnings of words (`stem*`)."""
    verbs: tuple[str, ...]
    """Beginnings of Russian verbs (`verb!`)."""
    suffixes: tuple[str, ...]
    """Ends of words (`*end`)."""
    rows: tuple[tuple["Element", ...], ...]
    """Several words in a row (`a_b`)."""

    def match_at(self, words: Sequence[str], place: int) -> int:
        """Return the place after the match that begins at `place`; 0 if there is none."""
        if place >= len(words):
            return 0
        word = words[place]
        if (
            word in self.exact
            or word.startswith(self.stems)
            or (word.endswith(self.suffixes) and word not in self.suffixes)
        ):
            return place + 1
        if any(word.startswith(verb) and _IMPERATIVE_ENDING.fullmatch(word, len(verb)) for verb in self.verbs):
            return place + 1
        return next((end for row in self.rows if (end := _match_row(row, words, place))), 0)


def _match_row(row: Sequence[Element], words: Sequence[str], place: int) -> int:
    for element in row:
        if not (place := element.match_at(words, place)):
            return 0
    return place


class Pattern:
    """A term of prompts/keywords.yaml."""

    def __init__(self, source: str) -> None:
        """Parse a term that `keywords` has checked."""
        parts = normalize(source).split()
        self.is_anchored = parts[0] == "^"
        self.parts = [None if part == "..." else _parse_element(part) for part in parts[self.is_anchored :]]

    def match_at(self, words: Sequence[str], place: int) -> int:
        """Return the place after the match that begins at `place`; 0 if there is none."""
        gap = 0
        for part in self.parts:
            if part is None:
                gap = MAX_GAP_WORDS
                continue
            while not (end := part.match_at(words, place)):
                if place >= len(words) or gap == 0 or words[place] in SENTENCE_ENDS:
                    return 0
                place, gap = place + 1, gap - 1
            place, gap = end, 0
        return place


def _parse_element(source: str) -> Element:
    alternatives = source.split("|")
    words = [word for word in alternatives if "_" not in word]
    return Element(
        frozenset(word for word in words if word[-1] not in "*!" and word[0] != "*"),
        tuple(word[:-1] for word in words if word.endswith("*")),
        tuple(word[:-1] for word in words if word.endswith("!")),
        tuple(word[1:] for word in words if word.startswith("*")),
        tuple(tuple(map(_parse_element, row.split("_"))) for row in alternatives if "_" in row),
    )
