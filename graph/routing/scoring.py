"""Score the words of a request: find the clues of prompts/keywords.yaml in it, and add up their points by agent."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from graph.routing.keywords import KEYWORDS, Clue, RequestForm
from graph.routing.patterns import SENTENCE_ENDS, Pattern, normalize

MAX_REQUEST_CHARS = 4_000
"""Characters of a request that are scored, sent to the classifier and stored. Bounds the time of a classification.
Chosen, not measured; the longest labelled request has 389."""
MIN_STATEMENT_WORDS = 4
"""A statement has more words than that, its final mark included. Measured: with 2 to 4, 1,489 of the 1,531 requests in
tests/corpus/requests.tsv go to the right agent; with 5 they are 1,486, with 8 1,471."""
MIN_LONG_TEXT_WORDS = 45
"""A long text has more words than that. Measured: any value from 30 to 60 scores the same on those requests."""
ERROR_PLACEHOLDER = "<error>"
"""Stands for the name of an error or of an exception."""
NAME_PLACEHOLDER = "<name>"
"""Stands for a path, a name of code, or code."""

_ERROR_RE = re.compile(
    r"[a-z0-9_]{2}(?:error|exception|panic)\b|\bsig(?:segv|kill|abrt|term|bus|fpe|ill)\b|\berrno\b|"
    r"\be(?:conn\w+|noent|acces|perm|addrinuse|timedout|resolve|pipe|nomem|exist|mfile)\b"
)
_CODE_RE = re.compile(r"```.*?(?:```|$)|`[^`\n]*`", re.DOTALL)
_NAME_RE = re.compile(r"\S*(?:/|\w\.[a-z_]|_|\w::|\(\)|@\w|\.\w{1,5}$)\S*")
_WORD_RE = re.compile(r"<\w+>|\w+(?:['-]\w+)*|[.!;:\n,?]|(?<![—–-])[—–-]+(?=\s)")


class ClueMatch(NamedTuple):
    """A clue in a request, with the words that matched first; a form has no words."""

    clue: str
    words: str
    points: Mapping[str, int]


class RequestText:
    """The words of a request, and the places where a sentence or a clause opens."""

    def __init__(self, text: str, fillers: frozenset[str]) -> None:
        self.raw = text[:MAX_REQUEST_CHARS]
        self.words = [*_WORD_RE.findall(_insert_placeholders(normalize(self.raw))), "."]
        self.openings = {*self._find_openings(fillers)}

    def _find_openings(self, fillers: frozenset[str]) -> Iterator[int]:
        opens = True
        for place, word in enumerate(self.words):
            if word in SENTENCE_ENDS or word == "," or word[0] in "—–-":
                opens = True
            elif opens:
                yield place
                opens = word in fillers

    def split_sentences(self) -> Iterator[tuple[list[str], str]]:
        """Yield the words of each sentence and the mark that ends it."""
        sentence: list[str] = []
        for word in self.words:
            if word not in SENTENCE_ENDS:
                sentence.append(word)
            elif sentence:
                yield sentence, word
                sentence = []


def _insert_placeholders(text: str) -> str:
    """Return the text with placeholders for names, code and errors."""
    text = _CODE_RE.sub(f" {NAME_PLACEHOLDER} ", text)
    return re.sub(r"\S+", lambda word: _replace_word(word[0]), text)


def _replace_word(word: str) -> str:
    core = word.rstrip("?!,;:.)»\"'")
    if _ERROR_RE.search(core):
        return f" {ERROR_PLACEHOLDER} {word[len(core) :]}"
    if _NAME_RE.fullmatch(core.lstrip("(«\"'")):
        return f" {NAME_PLACEHOLDER} {word[len(core) :]}"
    return word


class PatternIndex:
    """The terms of all clues by the beginning of their first word, so that few of them are tried at a word."""

    def __init__(self, clues: Sequence[Clue]) -> None:
        self._by_word: dict[str, list[tuple[Pattern, Clue]]] = {}
        self._by_stem: dict[str, list[tuple[Pattern, Clue]]] = {}
        self._others: list[tuple[Pattern, Clue]] = []
        for clue in clues:
            for term in clue.terms:
                self._add_pattern(Pattern(term), clue)
        self._longest = max(map(len, self._by_stem), default=0)

    def _add_pattern(self, pattern: Pattern, clue: Clue) -> None:
        first = pattern.parts[0]
        assert first, pattern
        for element in (first, *(row[0] for row in first.rows)):
            for word in element.exact:
                self._by_word.setdefault(word, []).append((pattern, clue))
            for stem in element.stems + element.verbs:
                self._by_stem.setdefault(stem, []).append((pattern, clue))
            if element.suffixes:
                self._others.append((pattern, clue))

    def find_candidates(self, word: str) -> Iterator[tuple[Pattern, Clue]]:
        """Yield the terms that may begin with this word."""
        yield from self._by_word.get(word, ())
        for length in range(1, min(len(word), self._longest) + 1):
            yield from self._by_stem.get(word[:length], ())
        yield from self._others

    def find_matches(self, text: RequestText) -> Iterator[ClueMatch]:
        """Yield each clue once, with the first words that match it."""
        seen: set[str] = set()
        for place, word in enumerate(text.words):
            for pattern, clue in self.find_candidates(word):
                if clue.name in seen or (pattern.is_anchored and place not in text.openings):
                    continue
                if end := pattern.match_at(text.words, place):
                    seen.add(clue.name)
                    yield ClueMatch(clue.name, " ".join(text.words[place:end]), clue.points)


_TRACE_RE = re.compile(
    r"traceback|^[ \t]*file \"|\bat [\w.$<>]+ ?\(|\.\w{1,5}:\d+|goroutine \d|0x[0-9a-f]{4}|exit (?:code|status) [1-9]|"
    r"^[\w.]+(?:error|exception)\b|(?:error|exception): \S|^(?:panic|fatal): |stderr|core dumped|\bcode [1-9]\d?\b|"
    r"\[err(?:or)?\]|\berror[:\[]",
    re.IGNORECASE | re.MULTILINE,
)


def _is_trace(text: RequestText) -> bool:
    return bool(_TRACE_RE.search(text.raw))


def _is_question(text: RequestText) -> bool:
    return "?" in text.words


def _is_choice(text: RequestText) -> bool:
    """Return whether the text has a question that names alternatives."""
    return any(
        mark == "?" and {"or", "или", "либо", "vs"} & {*sentence[1:]} for sentence, mark in text.split_sentences()
    )


def _is_long(text: RequestText) -> bool:
    return len(text.words) > MIN_LONG_TEXT_WORDS


def _is_statement(text: RequestText) -> bool:
    return len(text.words) > MIN_STATEMENT_WORDS  # `words` include the final mark


FORM_CHECKS: dict[RequestForm, Callable[[RequestText], bool]] = {
    "trace": _is_trace,
    "question": _is_question,
    "choice": _is_choice,
    "long": _is_long,
    "statement": _is_statement,
}

FILLER_WORDS = frozenset(map(normalize, KEYWORDS.fillers))
PATTERN_INDEX = PatternIndex(KEYWORDS.clues)
REQUEST_CLUES = {clue.name for clue in KEYWORDS.clues if clue.request}
FALLBACK_CLUES = {clue.name for clue in KEYWORDS.clues if clue.alone}


def match_clues(text: str) -> list[ClueMatch]:
    """Return every clue in the text, in the order of its words, then the forms of the text."""
    request = RequestText(text, FILLER_WORDS)
    matches = [*PATTERN_INDEX.find_matches(request)]
    wishes = REQUEST_CLUES & {match.clue for match in matches}
    if wishes - FALLBACK_CLUES:
        matches = [match for match in matches if match.clue not in FALLBACK_CLUES]
    forms = {name for name, has_form in FORM_CHECKS.items() if has_form(request)}
    if "question" in forms or wishes:
        forms.discard("statement")
    return [
        *matches,
        *(ClueMatch(f"is a {name}", "", points) for name, points in KEYWORDS.forms.items() if name in forms),
    ]


def sum_points(matches: Sequence[ClueMatch]) -> dict[str, int]:
    """Return the points of each agent that a clue names."""
    totals: dict[str, int] = {}
    for match in matches:
        for agent, points in match.points.items():
            totals[agent] = totals.get(agent, 0) + points
    return totals
