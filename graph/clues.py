"""What the words of a request say about who should answer it: clues, their points, and where they were found."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

import prompts
from prompts import AGENTS

LONGEST = 4_000
"""Characters of a request that are looked at."""
GAP = 8
"""Words that `...` may stand for."""
SHORTEST = 4
"""Words of a statement."""
ENDS = {".", "!", ";", ":", "\n", "?"}
"""Of a sentence."""
ERROR = "<error>"
"""Stands for the name of an error or of an exception."""
NAME = "<name>"
"""Stands for a path, a name of code, or code."""

_COMMAND = re.compile(r"(?!\w*ли$)\w*(?:й|йте|ь|ьте|и|ите|[еи]м|[еи]мте|ти|ка)(?:ся|сь)?|")
"""How a Russian verb ends that tells somebody to do something, or names what is to be done."""
_ERROR = re.compile(
    r"[a-z0-9_]{2}(?:error|exception|panic)\b|\bsig(?:segv|kill|abrt|term|bus|fpe|ill)\b|\berrno\b|"
    r"\be(?:conn\w+|noent|acces|perm|addrinuse|timedout|resolve|pipe|nomem|exist|mfile)\b"
)
_CODE = re.compile(r"```.*?(?:```|$)|`[^`\n]*`", re.DOTALL)
_NAME = re.compile(r"\S*(?:/|\w\.[a-z_]|_|\w::|\(\)|@\w|\.\w{1,5}$)\S*")
_WORD = re.compile(r"<\w+>|\w+(?:['-]\w+)*|[.!;:\n,?]|[—–-]+(?=\s)")


class Clue(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    points: dict[str, int] = Field(min_length=1)
    """For each agent it speaks for, or against."""
    terms: list[str] = Field(min_length=1)
    request: bool = False
    """Whether it says what is wanted."""
    alone: bool = False
    """Whether it counts only where no other clue says so."""

    @field_validator("points")
    @classmethod
    def _of_agents(cls, points: dict[str, int]) -> dict[str, int]:
        return _known(points)

    @field_validator("terms", mode="before")
    @classmethod
    def _separated(cls, terms: Any) -> Any:
        return [each.strip() for each in terms.strip().rstrip(",").split(",")] if isinstance(terms, str) else terms

    @field_validator("terms")
    @classmethod
    def _say_something(cls, terms: list[str]) -> list[str]:
        if not all(set(term.split()) - {"^", "..."} for term in terms):
            raise ValueError("there is an empty term")
        if any(term.removeprefix("^ ").startswith("...") for term in terms):
            raise ValueError("a term begins with a gap")
        return terms


def _known(points: dict[str, int]) -> dict[str, int]:
    if unknown := sorted(points.keys() - AGENTS.keys()):
        raise ValueError(f"there is no agent {', '.join(unknown)}; there are {', '.join(AGENTS)}")
    return points


class Keywords(BaseModel):
    """prompts/keywords.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str
    fillers: list[str] = Field(min_length=1)
    forms: dict[str, dict[str, int]]
    """What is known of a text by its form: see `forms`."""
    clues: list[Clue] = Field(min_length=1)

    @field_validator("default")
    @classmethod
    def _exists(cls, name: str) -> str:
        _known({name: 0})
        return name

    @field_validator("forms")
    @classmethod
    def _are_forms(cls, forms: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        if unknown := sorted(forms.keys() - FORMS.keys()):
            raise ValueError(f"there is no form {', '.join(unknown)}; there are {', '.join(FORMS)}")
        for points in forms.values():
            _known(points)
        return forms


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


def normal(text: str) -> str:
    return text.casefold().replace("ё", "е").replace("’", "'")


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
    return len(text.words) > 45


def _is_told(text: Text) -> bool:
    return len(text.words) > SHORTEST  # the mark at its end is one of them


FORMS = {"trace": _is_trace, "question": _is_question, "choice": _is_choice, "long": _is_long, "statement": _is_told}


def load(path: Path) -> Keywords:
    try:
        return Keywords.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


KEYWORDS = load(prompts.HERE / "keywords.yaml")
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
    return [*hits, *(Hit(f"is a {name}", "", KEYWORDS.forms[name]) for name in FORMS if name in forms)]


def scores(hits: Sequence[Hit]) -> dict[str, int]:
    found: dict[str, Any] = {}
    for hit in hits:
        for agent, points in hit.points.items():
            found[agent] = found.get(agent, 0) + points
    return found
