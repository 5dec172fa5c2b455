"""The notation of prompts/keywords.yaml: words in a row, their stems and endings, alternatives and gaps."""

import re
from collections.abc import Sequence
from typing import NamedTuple

GAP = 8
"""Words that `...` may stand for."""
ENDS = {".", "!", ";", ":", "\n", "?"}
"""Of a sentence."""

_COMMAND = re.compile(r"(?!\w*ли$)\w*(?:й|йте|ь|ьте|и|ите|[еи]м|[еи]мте|ти|ка)(?:ся|сь)?|")
"""How a Russian verb ends that tells somebody to do something, or names what is to be done."""


def normal(text: str) -> str:
    return text.casefold().replace("ё", "е").replace("’", "'")


class Element(NamedTuple):
    """One word, or one of several in a row."""

    exact: frozenset[str]
    stems: tuple[str, ...]
    verbs: tuple[str, ...]
    ends: tuple[str, ...]
    rows: tuple[tuple["Element", ...], ...]

    def fits(self, words: Sequence[str], place: int) -> int:
        """Where it ends that begins there; 0: it does not."""
        if place >= len(words):
            return 0
        word = words[place]
        if word in self.exact or word.startswith(self.stems) or (word.endswith(self.ends) and word not in self.ends):
            return place + 1
        if any(word.startswith(verb) and _COMMAND.fullmatch(word, len(verb)) for verb in self.verbs):
            return place + 1
        return next((end for row in self.rows if (end := _row_fits(row, words, place))), 0)


def _row_fits(row: Sequence[Element], words: Sequence[str], place: int) -> int:
    for element in row:
        if not (place := element.fits(words, place)):
            return 0
    return place


class Term:
    """Words in a row, in the notation of prompts/keywords.yaml."""

    def __init__(self, written: str) -> None:
        parts = normal(written).split()
        self.opens = parts[0] == "^"
        self.parts = [None if part == "..." else _element(part) for part in parts[self.opens :]]

    def found(self, words: Sequence[str], place: int) -> int:
        """Where it ends that begins there; 0: it does not."""
        gap = 0
        for part in self.parts:
            if part is None:
                gap = GAP
                continue
            while not (end := part.fits(words, place)):
                if place >= len(words) or gap == 0 or words[place] in ENDS:
                    return 0
                place, gap = place + 1, gap - 1
            place, gap = end, 0
        return place


def _element(written: str) -> Element:
    each = written.split("|")
    single = [one for one in each if "_" not in one]
    return Element(
        frozenset(one for one in single if one[-1] not in "*!" and one[0] != "*"),
        tuple(one[:-1] for one in single if one.endswith("*")),
        tuple(one[:-1] for one in single if one.endswith("!")),
        tuple(one[1:] for one in single if one.startswith("*")),
        tuple(tuple(map(_element, one.split("_"))) for one in each if "_" in one),
    )
