"""Choose the agent for a request by its words: by the keyword rules, by the n-grams, and by both together."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from typing_extensions import TypedDict

from graph.routing.cache import Choice
from graph.routing.keywords import KEYWORDS
from graph.routing.ngrams import NgramModel, find_best, load_default_model
from graph.routing.scoring import ClueMatch, match_clues, sum_points

MAX_REASONS = 3
"""Clues that the reason of a choice names. Chosen, not measured: they fit into one sentence."""
HIGH_CONFIDENCE_MARGIN = 6
MEDIUM_CONFIDENCE_MARGIN = 2
"""Points by which the best agent must lead the second one. Measured on tests/corpus/requests.tsv: of the choices with
high confidence 99 % are right, with medium 93 %, with low 78 %."""
POINT_WEIGHT = 0.3
"""Value of a point of the rules, in units of the logarithm of a probability. Measured on held-out requests: from 0.3 to
0.5 the two readers together are right in 94.8 %, with 0.1 in 93.8 %, either one alone in 92 to 93 %."""
LEAST_PROBABILITY = 1e-6
"""Keeps the logarithm finite."""


class WordReading(NamedTuple):
    """The choice that both readers make together."""

    choice: Choice
    is_agreed: bool
    """True: each reader has a reason of its own for this agent, and knows all agents of the team. Measured on held-out
    requests: they agree in 88 %, and are right then in 98.8 %."""


class ClueEvidence(TypedDict):
    """A clue in a request, with the words that matched first."""

    clue: str
    words: str
    points: dict[str, int]


class ScoreExplanation(TypedDict):
    """The choice that the words of a request make, and what each of the two readers says."""

    agent: str
    confidence: str
    reasoning: str
    method: str
    agreed: bool
    """True: both readers choose this agent, and know the whole team."""
    points: dict[str, int]
    """The points of each agent by the keyword rules."""
    probabilities: dict[str, float]
    """The probability of each agent by the n-grams, with three decimals; agents that it does not know are absent."""
    evidence: list[ClueEvidence]


def read_words(text: str, team: Collection[str]) -> WordReading:
    """Return the agent of the team that the words speak for. The same text always gets the same agent."""
    return read_words_with(load_default_model(), text, team)


def read_words_with(ngrams: NgramModel, text: str, team: Collection[str]) -> WordReading:
    """Return the same with other weights of the n-grams."""
    if len(team) == 1:
        return WordReading(classify_by_keywords(text, team), is_agreed=True)
    return _join_readings(text, team, match_clues(text), ngrams.estimate(text, team))


def _join_readings(
    text: str, team: Collection[str], matches: Sequence[ClueMatch], probabilities: Mapping[str, float]
) -> WordReading:
    by_rules = classify_by_keywords(text, team, matches)
    if not probabilities:
        return WordReading(by_rules, is_agreed=False)
    points = sum_points(matches)
    by_ngrams = find_best(probabilities)
    if by_ngrams != by_rules.agent:
        return WordReading(_combine(by_rules, probabilities, points), is_agreed=False)
    is_agreed = points.get(by_rules.agent, 0) > 0 and probabilities.keys() == {*team}
    return WordReading(by_rules._replace(confidence="high") if is_agreed else by_rules, is_agreed)


def _combine(by_rules: Choice, probabilities: Mapping[str, float], points: Mapping[str, int]) -> Choice:
    """Return the choice of two readers that disagree."""
    totals = {
        agent: math.log(probability + LEAST_PROBABILITY) + POINT_WEIGHT * points.get(agent, 0)
        for agent, probability in probabilities.items()
    }
    best = find_best(totals)
    if best == by_rules.agent or by_rules.agent not in totals:  # the n-grams know nothing of that agent
        return by_rules._replace(confidence="low")
    return Choice(best, "low", f"The request is worded like others for {best}.", "keywords")


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


def explain_scores(text: str, team: Collection[str]) -> ScoreExplanation:
    """Return the choice that the words of a request make, with the clues that it is made by."""
    matches, probabilities = match_clues(text), load_default_model().estimate(text, team)
    points = sum_points(matches)
    choice, is_agreed = _join_readings(text, team, matches, probabilities)
    return {
        "agent": choice.agent,
        "confidence": choice.confidence,
        "reasoning": choice.reasoning,
        "method": choice.method,
        "agreed": is_agreed,
        "points": {agent: points.get(agent, 0) for agent in team},
        "probabilities": {agent: round(probability, 3) for agent, probability in probabilities.items()},
        "evidence": [{"clue": match.clue, "words": match.words, "points": dict(match.points)} for match in matches],
    }
