"""Who should answer a request: one model call, or, without a usable answer of it, the words of the request."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from functools import partial
from string import Template
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

from graph import wire
from graph.errors import AgentRuntimeError
from graph.routing.cache import Choice, RoutingCache
from graph.routing.keywords import KEYWORDS
from graph.routing.patterns import normalize
from graph.routing.scoring import MAX_REQUEST_CHARS, ClueMatch, match_clues, sum_points
from graph.sanitize import sanitize_value
from graph.usage.call import build_usage, build_usage_metadata, usage_of
from graph.usage.tokens import estimate_tokens
from prompts import CLASSIFIER, ORCHESTRATOR, Agent


async def classify(
    llm: BaseChatModel,
    text: str,
    team: Mapping[str, Agent],
    cache: RoutingCache | None = None,
    on_usage: Callable[[wire.Usage], None] = lambda _: None,
) -> Choice:
    """`known`: what was chosen before; `tell`: is told what the model call cost."""
    if len(team) == 1:
        return classify_by_keywords(text, team)
    if cache and (before := cache.get(_make_cache_key(text, team, cache.model))):
        return before
    request = [SystemMessage(build_classifier_prompt(team)), HumanMessage(text[:MAX_REQUEST_CHARS])]
    size = partial(estimate_tokens, *request, with_envelope=False)
    try:
        answer = await llm.bind(**{"temperature": 0.3, **CLASSIFIER.parameters}).ainvoke(request)
    except AgentRuntimeError:
        return classify_by_keywords(text, team)
    except asyncio.CancelledError:
        on_usage(
            build_usage(
                build_usage_metadata(size(), 0),
                agent=ORCHESTRATOR,
                purpose="classification",
                estimated=True,
            )
        )
        raise
    on_usage(usage_of(answer, size, agent=ORCHESTRATOR, purpose="classification"))
    choice = _parse_choice(str(answer.text), team)
    if cache and choice:
        cache.put(_make_cache_key(text, team, cache.model), choice)
    return choice or classify_by_keywords(text, team)


def _make_cache_key(text: str, team: Mapping[str, Agent], model: str) -> Hashable:
    """Case and space do not matter; another model, prompt or team is another question."""
    version = hashlib.sha256(build_classifier_prompt(team).encode()).digest()
    return " ".join(normalize(text[:MAX_REQUEST_CHARS]).split()), model, version


def build_classifier_prompt(team: Mapping[str, Agent]) -> str:
    agents = "\n".join(f"- {agent.name}: {agent.description}" for agent in team.values())
    return Template(CLASSIFIER.prompt).substitute(agents=agents)


def _parse_choice(answer: str, team: Collection[str]) -> Choice | None:
    said = next((each for each in _find_json_objects(answer[:MAX_REQUEST_CHARS]) if "agent" in each), {})
    agent, confidence = (str(said.get(field, "")).strip().casefold() for field in ("agent", "confidence"))
    if agent not in team:
        return None
    confidence = confidence if confidence in ("high", "medium", "low") else "medium"
    return Choice(agent, confidence, sanitize_value(str(said.get("reasoning") or ""))[:500], "llm")


def _find_json_objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, whatever stands around them."""
    start = text.find("{")
    while start >= 0:
        try:
            found, end = json.JSONDecoder().raw_decode(text, start)
            yield found
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)


def classify_by_keywords(text: str, team: Collection[str], matches: Sequence[ClueMatch] | None = None) -> Choice:
    """The agent of the team with the most points; the same text always gets the same.

    `hits`: its evidence, where it is at hand.
    """
    if len(team) == 1:
        return Choice(next(iter(team)), "high", "There is no other agent.", "keywords")
    matches = match_clues(text) if matches is None else matches
    points = {agent: scored for agent, scored in sum_points(matches).items() if agent in team and scored > 0}
    if not points:
        agent = KEYWORDS.default if KEYWORDS.default in team else min(team)
        return Choice(agent, "low", "No word of the request points to an agent.", "keywords")
    best, *others = sorted(points, key=lambda agent: (-points[agent], agent))
    because = sorted((hit for hit in matches if hit.points.get(best, 0) > 0), key=lambda hit: -hit.points[best])
    confidence = _rate_confidence(points[best], max((points[other] for other in others), default=0))
    return Choice(best, confidence, _describe_matches(because), "keywords")


def _describe_matches(matches: Sequence[ClueMatch]) -> str:
    told = [f'{hit.clue} ("{hit.words}")' if hit.words else hit.clue for hit in matches[:3]]
    return f"The request {', '.join(told)}."


def _rate_confidence(best: int, second: int) -> str:
    return "high" if best >= second + 6 else "medium" if best >= second + 2 else "low"


def peek_cached_choice(text: str, team: Mapping[str, Agent], cache: RoutingCache) -> Choice | None:
    """What the model said of a request before."""
    return cache.peek(_make_cache_key(text, team, cache.model))


def explain_scores(text: str, team: Collection[str]) -> dict[str, Any]:
    """What the words of a request say, and whom they speak for."""
    hits = match_clues(text)
    points = sum_points(hits)
    return {
        **classify_by_keywords(text, team, hits)._asdict(),
        "points": {agent: points.get(agent, 0) for agent in team},
        "evidence": [{"clue": hit.clue, "words": hit.words, "points": dict(hit.points)} for hit in hits],
    }
