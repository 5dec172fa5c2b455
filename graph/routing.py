"""Who should answer a request: one model call, or, without a usable answer of it, the words of the request."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import yaml
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

import prompts
from graph.clean import clean
from graph.errors import AgentRuntimeError
from prompts import AGENTS, CLASSIFIER, Agent

LONGEST = 4_000
"""Characters of a request, or of a model's answer, that are looked at."""


class Choice(NamedTuple):
    agent: str
    confidence: str
    """high, medium or low."""
    reasoning: str
    method: str
    """llm or keywords."""


async def classify(llm: BaseChatModel, text: str, team: Mapping[str, Agent]) -> Choice:
    if len(team) == 1:
        return by_keywords(text, team)
    request = [SystemMessage(classification_prompt(team)), HumanMessage(text[:LONGEST])]
    try:
        answer = await llm.bind(**{"temperature": 0.3, **CLASSIFIER.parameters}).ainvoke(request)
    except AgentRuntimeError:
        return by_keywords(text, team)
    return _chosen(str(answer.text), team) or by_keywords(text, team)


def classification_prompt(team: Mapping[str, Agent]) -> str:
    agents = "\n".join(f"- {agent.name}: {agent.description}" for agent in team.values())
    return Template(CLASSIFIER.prompt).substitute(agents=agents)


def _chosen(answer: str, team: Collection[str]) -> Choice | None:
    said = next((each for each in _objects(answer[:LONGEST]) if "agent" in each), {})
    agent, confidence = (str(said.get(field, "")).strip().casefold() for field in ("agent", "confidence"))
    if agent not in team:
        return None
    confidence = confidence if confidence in ("high", "medium", "low") else "medium"
    return Choice(agent, confidence, clean(str(said.get("reasoning") or ""))[:500], "llm")


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, whatever stands around them."""
    start = text.find("{")
    while start >= 0:
        try:
            found, end = json.JSONDecoder().raw_decode(text, start)
            yield found
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)


class Hit(NamedTuple):
    words: str
    points: int


def by_keywords(text: str, team: Collection[str]) -> Choice:
    """The agent of the team with the most points; the same text always gets the same."""
    if len(team) == 1:
        return Choice(next(iter(team)), "high", "There is no other agent.", "keywords")
    hits = {agent: found for agent, found in evidence(text).items() if agent in team}
    points = {agent: sum(hit.points for hit in found) for agent, found in hits.items()}
    if not any(points.values()):
        agent = KEYWORDS.default if KEYWORDS.default in team else min(team)
        return Choice(agent, "low", "No word of the request points to an agent.", "keywords")
    best, *others = sorted(points, key=lambda agent: -points[agent])
    words = ", ".join(f'"{hit.words}"' for hit in hits[best][:4])
    confidence = _confidence(points[best], max((points[other] for other in others), default=0))
    return Choice(best, confidence, f"The request says {words}.", "keywords")


def _confidence(best: int, second: int) -> str:
    return "high" if best >= second + 6 else "medium" if best >= second + 2 else "low"


def evidence(text: str) -> dict[str, list[Hit]]:
    """What speaks for each agent, the strongest first."""
    words = _words(text)
    opening = {place for m in OPENING.finditer(words) for place in range(m.start(), m.end() + 1)}
    return {
        agent: sorted((hit for term in terms if (hit := term.found(words, opening))), key=lambda hit: -hit.points)
        for agent, terms in TERMS.items()
    }


def _words(text: str) -> str:
    """The words and marks of a text, each with a space after it; `_` stands for names of files and code."""
    spoken = _NAMES.sub(" _ ", _normal(text[:LONGEST]))
    return "".join((". " if word in ENDS else f"{word} ") for word in _WORD.findall(spoken))


def _normal(text: str) -> str:
    return text.casefold().replace("ё", "е").replace("’", "'")


_NAMES = re.compile(r"`[^`]*`|(?<!\S)\S*(?:/|\w\.[a-z])\S*?(?=[?!,;:.)]*(?:\s|$))")
ENDS = ".!;:\n"
_WORD = re.compile(r"\w+(?:'\w+)*|[.!;:\n,?]")


class Term:
    def __init__(self, written: str, points: int) -> None:
        parts = (re.escape(word).replace(r"\*", r"[^\s.,?]*") + " " for word in _normal(written).split())
        gaps = "".join(parts).replace(r"\.\.\. ", r"(?:[^\s.?]+ ){0,8}?")
        self.pattern = re.compile(rf"(?<!\S){gaps}")
        self.points = points

    def found(self, words: str, opening: Collection[int]) -> Hit | None:
        matches = list(self.pattern.finditer(words))
        if not matches:
            return None
        opens = next((m for m in matches if m.start() in opening), None)
        return Hit((opens or matches[0])[0].strip(), self.points * (2 if opens else 1))


class Keywords(BaseModel):
    """prompts/keywords.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str
    fillers: list[str] = Field(min_length=1)
    agents: dict[str, dict[PositiveInt, list[str]]] = Field(min_length=1)

    @field_validator("default", "agents")
    @classmethod
    def _exist(cls, named: Any) -> Any:
        unknown = sorted({named} - AGENTS.keys() if isinstance(named, str) else named.keys() - AGENTS.keys())
        if unknown:
            raise ValueError(f"there is no agent {', '.join(unknown)}; there are {', '.join(AGENTS)}")
        return named

    @field_validator("agents")
    @classmethod
    def _say_something(cls, agents: dict[str, dict[int, list[str]]]) -> dict[str, dict[int, list[str]]]:
        for agent, groups in agents.items():
            if not groups or not all(terms and all(map(str.strip, terms)) for terms in groups.values()):
                raise ValueError(f"{agent} has an empty list or an empty term")
        return agents


def load(path: Path) -> Keywords:
    try:
        return Keywords.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


KEYWORDS = load(prompts.HERE / "keywords.yaml")
TERMS = {
    agent: [Term(term, points) for points, terms in groups.items() for term in terms]
    for agent, groups in KEYWORDS.agents.items()
}
OPENING = re.compile(rf"(?:^|[.,?] )(?:(?:{'|'.join(re.escape(_normal(word)) for word in KEYWORDS.fillers)}) )*")
