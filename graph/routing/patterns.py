"""The notation of prompts/keywords.yaml: words in a row, their stems and endings, alternatives and gaps."""

import re
from collections.abc import Sequence
from typing import NamedTuple

MAX_GAP_WORDS = 8
"""Words that `...` may stand for."""
SENTENCE_ENDS = {".", "!", ";", ":", "\n", "?"}
"""Of a sentence."""

_IMPERATIVE_ENDING = re.compile(r"(?!\w*ли$)\w*(?:й|йте|ь|ьте|и|ите|[еи]м|[еи]мте|ти|ка)(?:ся|сь)?|")
"""How a Russian verb ends that tells somebody to do something, or names what is to be done."""


def normalize(text: str) -> str:
    return text.casefold().replace("ё", "е").replace("’", "'")


class Element(NamedTuple):
    """One word, or one of several in a row."""

    exact: frozenset[str]
    stems: tuple[str, ...]
    verbs: tuple[str, ...]
    suffixes: tuple[str, ...]
    rows: tuple[tuple["Element", ...], ...]

    def match_at(self, words: Sequence[str], place: int) -> int:
        """Where it ends that begins there; 0: it does not."""
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
    """Words in a row, in the notation of prompts/keywords.yaml."""

    def __init__(self, source: str) -> None:
        parts = normalize(source).split()
        self.is_anchored = parts[0] == "^"
        self.parts = [None if part == "..." else _parse_element(part) for part in parts[self.is_anchored :]]

    def match_at(self, words: Sequence[str], place: int) -> int:
        """Where it ends that begins there; 0: it does not."""
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
    each = source.split("|")
    single = [one for one in each if "_" not in one]
    return Element(
        frozenset(one for one in single if one[-1] not in "*!" and one[0] != "*"),
        tuple(one[:-1] for one in single if one.endswith("*")),
        tuple(one[:-1] for one in single if one.endswith("!")),
        tuple(one[1:] for one in single if one.startswith("*")),
        tuple(tuple(map(_parse_element, one.split("_"))) for one in each if "_" in one),
    )
