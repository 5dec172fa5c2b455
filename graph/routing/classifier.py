"""Who should answer a request: one model call, or, without a usable answer of it, the words of the request."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from string import Template
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

from graph import wire
from graph.errors import AgentRuntimeError
from graph.routing.cache import Choice, Classifications
from graph.routing.keywords import KEYWORDS
from graph.routing.patterns import normal
from graph.routing.scoring import LONGEST, Hit, evidence, scores
from graph.sanitize import clean
from graph.usage.call import cost_of, estimate, size, spent
from prompts import CLASSIFIER, ORCHESTRATOR, Agent


async def classify(
    llm: BaseChatModel,
    text: str,
    team: Mapping[str, Agent],
    known: Classifications | None = None,
    tell: Callable[[wire.Usage], None] = lambda _: None,
) -> Choice:
    """`known`: what was chosen before; `tell`: is told what the model call cost."""
    if len(team) == 1:
        return by_keywords(text, team)
    if known and (before := known.get(_key(text, team, known.model))):
        return before
    request = [SystemMessage(classification_prompt(team)), HumanMessage(text[:LONGEST])]
    try:
        answer = await llm.bind(**{"temperature": 0.3, **CLASSIFIER.parameters}).ainvoke(request)
    except AgentRuntimeError:
        return by_keywords(text, team)
    except asyncio.CancelledError:
        tell(spent(estimate(size(request), 0), agent=ORCHESTRATOR, purpose="classification", estimated=True))
        raise
    tell(cost_of(answer, lambda: size(request), agent=ORCHESTRATOR, purpose="classification"))
    choice = _chosen(str(answer.text), team)
    if known and choice:
        known.keep(_key(text, team, known.model), choice)
    return choice or by_keywords(text, team)


def _key(text: str, team: Mapping[str, Agent], model: str) -> Hashable:
    """Case and space do not matter; another model, prompt or team is another question."""
    version = hashlib.sha256(classification_prompt(team).encode()).digest()
    return " ".join(normal(text[:LONGEST]).split()), model, version


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


def by_keywords(text: str, team: Collection[str], hits: Sequence[Hit] | None = None) -> Choice:
    """The agent of the team with the most points; the same text always gets the same.

    `hits`: its evidence, where it is at hand.
    """
    if len(team) == 1:
        return Choice(next(iter(team)), "high", "There is no other agent.", "keywords")
    hits = evidence(text) if hits is None else hits
    points = {agent: scored for agent, scored in scores(hits).items() if agent in team and scored > 0}
    if not points:
        agent = KEYWORDS.default if KEYWORDS.default in team else min(team)
        return Choice(agent, "low", "No word of the request points to an agent.", "keywords")
    best, *others = sorted(points, key=lambda agent: (-points[agent], agent))
    because = sorted((hit for hit in hits if hit.points.get(best, 0) > 0), key=lambda hit: -hit.points[best])
    confidence = _confidence(points[best], max((points[other] for other in others), default=0))
    return Choice(best, confidence, _reason(because), "keywords")


def _reason(hits: Sequence[Hit]) -> str:
    told = [f'{hit.clue} ("{hit.words}")' if hit.words else hit.clue for hit in hits[:3]]
    return f"The request {', '.join(told)}."


def _confidence(best: int, second: int) -> str:
    return "high" if best >= second + 6 else "medium" if best >= second + 2 else "low"


def remembered(text: str, team: Mapping[str, Agent], known: Classifications) -> Choice | None:
    """What the model said of a request before."""
    return known.peek(_key(text, team, known.model))


def explanation(text: str, team: Collection[str]) -> dict[str, Any]:
    """What the words of a request say, and whom they speak for."""
    hits = evidence(text)
    points = scores(hits)
    return {
        **by_keywords(text, team, hits)._asdict(),
        "points": {agent: points.get(agent, 0) for agent in team},
        "evidence": [{"clue": hit.clue, "words": hit.words, "points": dict(hit.points)} for hit in hits],
    }
