"""What the words of a request say about who should answer it: clues, their points, and where they were found."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from graph.routing.keywords import KEYWORDS, Clue, Form
from graph.routing.patterns import ENDS, Term, normal

LONGEST = 4_000
"""Characters of a request that are looked at."""
SHORTEST, LONG = 4, 45
"""Words of a statement, and of a long text."""
ERROR = "<error>"
"""Stands for the name of an error or of an exception."""
NAME = "<name>"
"""Stands for a path, a name of code, or code."""

_ERROR = re.compile(
    r"[a-z0-9_]{2}(?:error|exception|panic)\b|\bsig(?:segv|kill|abrt|term|bus|fpe|ill)\b|\berrno\b|"
    r"\be(?:conn\w+|noent|acces|perm|addrinuse|timedout|resolve|pipe|nomem|exist|mfile)\b"
)
_CODE = re.compile(r"```.*?(?:```|$)|`[^`\n]*`", re.DOTALL)
_NAME = re.compile(r"\S*(?:/|\w\.[a-z_]|_|\w::|\(\)|@\w|\.\w{1,5}$)\S*")
_WORD = re.compile(r"<\w+>|\w+(?:['-]\w+)*|[.!;:\n,?]|(?<![—–-])[—–-]+(?=\s)")


class Hit(NamedTuple):
    clue: str
    words: str
    points: Mapping[str, int]


class Text:
    """The words of a request, and which of them open a sentence or a clause."""

    def __init__(self, text: str, fillers: frozenset[str]) -> None:
        self.raw = text[:LONGEST]
        self.words = [*_WORD.findall(_spoken(normal(self.raw))), "."]
        self.openings = {*self._openings(fillers)}

    def _openings(self, fillers: frozenset[str]) -> Iterator[int]:
        opens = True
        for place, word in enumerate(self.words):
            if word in ENDS or word == "," or word[0] in "—–-":
                opens = True
            elif opens:
                yield place
                opens = word in fillers

    def sentences(self) -> Iterator[tuple[list[str], str]]:
        """The words of each, and the mark that ends it."""
        sentence: list[str] = []
        for word in self.words:
            if word not in ENDS:
                sentence.append(word)
            elif sentence:
                yield sentence, word
                sentence = []


def _spoken(text: str) -> str:
    """With names and errors replaced by what they are."""
    text = _CODE.sub(f" {NAME} ", text)
    return re.sub(r"\S+", lambda found: _replaced(found[0]), text)


def _replaced(word: str) -> str:
    core = word.rstrip("?!,;:.)»\"'")
    if _ERROR.search(core):
        return f" {ERROR} {word[len(core) :]}"
    if _NAME.fullmatch(core.lstrip("(«\"'")):
        return f" {NAME} {word[len(core) :]}"
    return word


class Index:
    """The terms by how their first word begins: few of them are tried at a word."""

    def __init__(self, clues: Sequence[Clue]) -> None:
        self._by_word: dict[str, list[tuple[Term, Clue]]] = {}
        self._by_stem: dict[str, list[tuple[Term, Clue]]] = {}
        self._others: list[tuple[Term, Clue]] = []
        for clue in clues:
            for written in clue.terms:
                self._add(Term(written), clue)
        self._longest = max(map(len, self._by_stem), default=0)

    def _add(self, term: Term, clue: Clue) -> None:
        first = term.parts[0]
        assert first, term
        for element in (first, *(row[0] for row in first.rows)):
            for word in element.exact:
                self._by_word.setdefault(word, []).append((term, clue))
            for stem in element.stems + element.verbs:
                self._by_stem.setdefault(stem, []).append((term, clue))
            if element.ends:
                self._others.append((term, clue))

    def candidates(self, word: str) -> Iterator[tuple[Term, Clue]]:
        yield from self._by_word.get(word, ())
        for length in range(1, min(len(word), self._longest) + 1):
            yield from self._by_stem.get(word[:length], ())
        yield from self._others

    def hits(self, text: Text) -> Iterator[Hit]:
        """Each clue once, with the first words that gave it."""
        seen: set[str] = set()
        for place, word in enumerate(text.words):
            for term, clue in self.candidates(word):
                if clue.name in seen or (term.opens and place not in text.openings):
                    continue
                if end := term.found(text.words, place):
                    seen.add(clue.name)
                    yield Hit(clue.name, " ".join(text.words[place:end]), clue.points)


_TRACE = re.compile(
    r"traceback|^[ \t]*file \"|\bat [\w.$<>]+ ?\(|\.\w{1,5}:\d+|goroutine \d|0x[0-9a-f]{4}|exit (?:code|status) [1-9]|"
    r"^[\w.]+(?:error|exception)\b|(?:error|exception): \S|^(?:panic|fatal): |stderr|core dumped|\bcode [1-9]\d?\b|"
    r"\[err(?:or)?\]|\berror[:\[]",
    re.IGNORECASE | re.MULTILINE,
)


def _is_trace(text: Text) -> bool:
    return bool(_TRACE.search(text.raw))


def _is_question(text: Text) -> bool:
    return "?" in text.words


def _is_choice(text: Text) -> bool:
    """A question that names what there is to choose from."""
    return any(mark == "?" and {"or", "или", "либо", "vs"} & {*sentence[1:]} for sentence, mark in text.sentences())


def _is_long(text: Text) -> bool:
    return len(text.words) > LONG


def _is_told(text: Text) -> bool:
    return len(text.words) > SHORTEST  # the mark at its end is one of them


FORMS: dict[Form, Callable[[Text], bool]] = {
    "trace": _is_trace,
    "question": _is_question,
    "choice": _is_choice,
    "long": _is_long,
    "statement": _is_told,
}

FILLERS = frozenset(map(normal, KEYWORDS.fillers))
INDEX = Index(KEYWORDS.clues)
REQUESTS = {clue.name for clue in KEYWORDS.clues if clue.request}
ALONE = {clue.name for clue in KEYWORDS.clues if clue.alone}


def evidence(text: str) -> list[Hit]:
    """Every clue in the text, in the order of its words; then its forms."""
    read = Text(text, FILLERS)
    hits = [*INDEX.hits(read)]
    wanted = REQUESTS & {hit.clue for hit in hits}
    if wanted - ALONE:
        hits = [hit for hit in hits if hit.clue not in ALONE]
    forms = {name for name, has in FORMS.items() if has(read)}
    if "question" in forms or wanted:
        forms.discard("statement")
    return [*hits, *(Hit(f"is a {name}", "", points) for name, points in KEYWORDS.forms.items() if name in forms)]


def scores(hits: Sequence[Hit]) -> dict[str, int]:
    found: dict[str, int] = {}
    for hit in hits:
        for agent, points in hit.points.items():
            found[agent] = found.get(agent, 0) + points
    return found
