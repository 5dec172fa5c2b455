"""Choose the agent for a request: by one model call or, if that gives no usable answer, by the words of the request."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from functools import partial
from string import Template
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

from graph import wire
from graph.errors import AgentRuntimeError
from graph.routing.cache import Choice, RoutingCache
from graph.routing.patterns import normalize
from graph.routing.scoring import MAX_REQUEST_CHARS
from graph.routing.words import read_words
from graph.sanitize import sanitize_value
from graph.thoughts import strip_thoughts
from graph.usage.call import build_usage, build_usage_metadata, usage_of
from graph.usage.tokens import estimate_tokens
from prompts import CLASSIFIER, ORCHESTRATOR, Agent
from textsafety import is_blank_text

TEMPERATURE = 0.3
"""Of the classification call, unless the classifier's file names another one. The wire contract prescribes it."""
MAX_REASONING_CHARS = 500
"""Characters of the model's reasoning that are kept and shown. Chosen, not measured: the prompt wants one sentence."""


async def classify(
    llm: BaseChatModel,
    text: str,
    team: Mapping[str, Agent],
    cache: RoutingCache | None = None,
    on_usage: Callable[[wire.Usage], None] = lambda _: None,
    *,
    skip_model: bool = False,
) -> Choice:
    """Return the agent of the team that the request goes to.

    `cache` holds earlier choices. `on_usage` receives the usage of the model call. With `skip_model` the model is not
    called for a request whose words leave no doubt. A model that fails, or gives no usable answer, is replaced by the
    words of the request.
    """
    if len(team) == 1 or is_blank_text(text):  # services refuse a blank message
        return read_words(text, team).choice
    if cache and (before := cache.get(_make_cache_key(text, team, cache.model))):
        return before
    if skip_model and (reading := read_words(text, team)).is_agreed:
        return reading.choice
    choice = await _ask_model(llm, text, team, on_usage)
    if cache and choice:
        cache.put(_make_cache_key(text, team, cache.model), choice)
    return choice or read_words(text, team).choice


async def _ask_model(
    llm: BaseChatModel, text: str, team: Mapping[str, Agent], on_usage: Callable[[wire.Usage], None]
) -> Choice | None:
    """Return the model's choice; None if it fails or gives no usable answer."""
    request = [SystemMessage(build_classifier_prompt(team)), HumanMessage(text.strip()[:MAX_REQUEST_CHARS])]
    size = partial(estimate_tokens, *request, with_envelope=False)
    try:
        answer = await llm.bind(**{"temperature": TEMPERATURE, **CLASSIFIER.parameters}).ainvoke(request)
    except AgentRuntimeError:
        return None
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
    return _parse_choice(strip_thoughts(str(answer.text)), team)


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


def peek_cached_choice(text: str, team: Mapping[str, Agent], cache: RoutingCache) -> Choice | None:
    """Return the cached choice of the model for a request, or None. This is not counted as a hit or a miss."""
    return cache.peek(_make_cache_key(text, team, cache.model))
