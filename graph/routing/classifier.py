"""Choose the agent for a request: by one model call or, if that gives no usable answer, by the words of the request."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from functools import partial
from string import Template
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from typing_extensions import TypedDict

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

TEMPERATURE = 0.3
"""Of the classification call, unless the classifier's file names another one. The wire contract prescribes it."""
MAX_REASONING_CHARS = 500
"""Characters of the model's reasoning that are kept and shown. Chosen, not measured: the prompt wants one sentence."""
MAX_REASONS = 3
"""Clues that the reason of a choice names. Chosen, not measured: they fit into one sentence."""
HIGH_CONFIDENCE_MARGIN = 6
MEDIUM_CONFIDENCE_MARGIN = 2
"""Points by which the best agent must lead the second one. Measured on tests/corpus/requests.tsv: of the choices with
high confidence 99 % are right, with medium 93 %, with low 78 %."""


class ClueEvidence(TypedDict):
    """A clue in a request, with the words that matched first."""

    clue: str
    words: str
    points: dict[str, int]


class ScoreExplanation(TypedDict):
    """The choice that the words of a request make, the points of each agent, and the clues."""

    agent: str
    confidence: str
    reasoning: str
    method: str
    points: dict[str, int]
    evidence: list[ClueEvidence]


async def classify(
    llm: BaseChatModel,
    text: str,
    team: Mapping[str, Agent],
    cache: RoutingCache | None = None,
    on_usage: Callable[[wire.Usage], None] = lambda _: None,
) -> Choice:
    """Return the agent of the team that the request goes to.

    `cache` holds earlier choices; without it the model is always called. `on_usage` receives the usage of the model
    call. A model that fails, or gives no usable answer, is replaced by the words of the request.
    """
    if len(team) == 1:
        return classify_by_keywords(text, team)
    if cache and (before := cache.get(_make_cache_key(text, team, cache.model))):
        return before
    request = [SystemMessage(build_classifier_prompt(team)), HumanMessage(text[:MAX_REQUEST_CHARS])]
    size = partial(estimate_tokens, *request, with_envelope=False)
    try:
        answer = await llm.bind(**{"temperature": TEMPERATURE, **CLASSIFIER.parameters}).ainvoke(request)
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
    """Return a key that ignores case and spaces, and differs for another model, prompt or team."""
    version = hashlib.sha256(build_classifier_prompt(team).encode()).digest()
    return " ".join(normalize(text[:MAX_REQUEST_CHARS]).split()), model, version


def build_classifier_prompt(team: Mapping[str, Agent]) -> str:
    """Return the classifier's prompt with the descriptions of the team."""
    agents = "\n".join(f"- {agent.name}: {agent.description}" for agent in team.values())
    return Template(CLASSIFIER.prompt).substitute(agents=agents)


def _parse_choice(answer: str, team: Collection[str]) -> Choice | None:
    """Return the choice in a model's answer; None if it names no agent of the team."""
    fields = next((each for each in _find_json_objects(answer[:MAX_REQUEST_CHARS]) if "agent" in each), {})
    agent, confidence = (str(fields.get(name, "")).strip().casefold() for name in ("agent", "confidence"))
    if agent not in team:
        return None
    confidence = confidence if confidence in ("high", "medium", "low") else "medium"
    return Choice(agent, confidence, sanitize_value(str(fields.get("reasoning") or ""))[:MAX_REASONING_CHARS], "llm")


def _find_json_objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text, whatever stands around them."""
    start = text.find("{")
    while start >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, start)
            yield value
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)


def classify_by_keywords(text: str, team: Collection[str], matches: Sequence[ClueMatch] | None = None) -> Choice:
    """Return the agent of the team with the most points. The same text always gets the same agent.

    `matches` are the clues in the text, if the caller has them already.
    """
    if len(team) == 1:
        return Choice(next(iter(team)), "high", "There is no other agent.", "keywords")
    matches = match_clues(text) if matches is None else matches
    points = {agent: scored for agent, scored in sum_points(matches).items() if agent in team and scored > 0}
    if not points:
        agent = KEYWORDS.default if KEYWORDS.default in team else min(team)
        return Choice(agent, "low", "No word of the request points to an agent.", "keywords")
    best, *others = sorted(points, key=lambda agent: (-points[agent], agent))
    reasons = sorted(
        (match for match in matches if match.points.get(best, 0) > 0), key=lambda match: -match.points[best]
    )
    confidence = _rate_confidence(points[best], max((points[other] for other in others), default=0))
    return Choice(best, confidence, _describe_matches(reasons), "keywords")


def _describe_matches(matches: Sequence[ClueMatch]) -> str:
    """Return a sentence with the first clues."""
    parts = [f'{match.clue} ("{match.words}")' if match.words else match.clue for match in matches[:MAX_REASONS]]
    return f"The request {', '.join(parts)}."


def _rate_confidence(best: int, second: int) -> str:
    """Return the confidence in an agent with `best` points; the second one has `second` points."""
    ahead = best - second
    return "high" if ahead >= HIGH_CONFIDENCE_MARGIN else "medium" if ahead >= MEDIUM_CONFIDENCE_MARGIN else "low"


def peek_cached_choice(text: str, team: Mapping[str, Agent], cache: RoutingCache) -> Choice | None:
    """Return the cached choice of the model for a request, or None. This is not counted as a hit or a miss."""
    return cache.peek(_make_cache_key(text, team, cache.model))


def explain_scores(text: str, team: Collection[str]) -> ScoreExplanation:
    """Return the choice that the words of a request make, with the clues that it is made by."""
    matches = match_clues(text)
    points = sum_points(matches)
    choice = classify_by_keywords(text, team, matches)
    return {
        "agent": choice.agent,
        "confidence": choice.confidence,
        "reasoning": choice.reasoning,
        "method": choice.method,
        "points": {agent: points.get(agent, 0) for agent in team},
        "evidence": [{"clue": match.clue, "words": match.words, "points": dict(match.points)} for match in matches],
    }
