"""Default prices: the list prices of well-known services, from the offline data of the package `genai-prices`.

A wrong price is worse than none. So a name must be one that the data spell out, and its service must be known: from the
address, from the prefix of the name, or because nobody else can run the model.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from graph.prices import Price, TokenCounts

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

PREFIXES = {
    "anthropic": "anthropic",
    "azure": "azure",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "google": "google",
    "groq": "groq",
    "mistral": "mistral",
    "models": "google",
    "moonshot": "moonshotai",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together_ai": "together",
    "vertex_ai": "google",
    "x-ai": "x-ai",
    "xai": "x-ai",
}
"""The prefixes of names that gateways route by, such as `openai/gpt-4o`, and the service that each one means."""
FAMILIES = {
    r"(gpt|chatgpt|codex)-(?!oss)|o\d": "openai",
    r"claude-": "anthropic",
    r"gemini-": "google",
    r"grok-(?![12])": "x-ai",
}
"""The beginnings of names of models that only one company can run: their weights are not public."""
SHARED_PREFIXES = {"google", "openai", "x-ai", "xai"}
"""Prefixes that also own public weights, such as `openai/gpt-oss-20b`: here a name needs its family as well."""
SNAPSHOT = re.compile(r"([-@]20\d{2}-?\d{2}-?\d{2}|-latest|-\d{3})$")
"""The end of a name that names a snapshot of the same model."""
LOCAL_HOST = re.compile(r"https?://(\[|[^/.:]+([:/?]|$)|[0-9.]+([:/?]|$))", re.IGNORECASE)
"""The beginning of an address in a private network: an IP address, or a name without a dot."""


class DefaultPrice(NamedTuple):
    """The price of one model. It may depend on the time and on the length of the prompt."""

    model: "ModelInfo"

    def calculate_cost(self, usage: TokenCounts) -> Decimal:
        rates = self.model.get_prices(datetime.now(UTC))
        prompt, cached, completion = (
            _find_rate(rate, usage.prompt_tokens)
            for rate in (rates.input_mtok, rates.cache_read_mtok, rates.output_mtok)
        )
        return Price(prompt=prompt or Decimal(0), cached=cached, completion=completion or Decimal(0)).calculate_cost(
            usage
        )


def _find_rate(rate: Any, prompt_tokens: int) -> Decimal | None:
    """Return the price of a million tokens: a number, or that of the highest tier that the prompt exceeds."""
    base: Decimal | None = getattr(rate, "base", rate)
    tiers = getattr(rate, "tiers", ())
    return next((tier.price for tier in reversed(tiers) if prompt_tokens > tier.start), base)


@cache
def find_default_prices(models: Sequence[str], address: str) -> Mapping[str, DefaultPrice]:
    """Return the prices of those `models` that have one. `address` is that of the model service.

    The package is imported for names that may have a price only: that takes half a second.
    """
    is_local = bool(LOCAL_HOST.match(address))
    candidates = [model for model in models if not is_local or _guess_service(model)]
    if not candidates:
        return {}
    from genai_prices.data import providers

    own = [each for each in providers if not is_local and re.match(each.api_pattern, address)]
    found = {model: _find_model(model, own, providers) for model in candidates}
    return {name: DefaultPrice(model) for name, model in found.items() if model}


def _guess_service(model: str) -> tuple[str, str] | None:
    """Return the service that a name means and the name there; None if it may be a model of anybody."""
    prefix, _, name = model.lower().partition("/")
    family = next((service for pattern, service in FAMILIES.items() if re.match(pattern, name or prefix)), None)
    if not name:
        return (family, prefix) if family else None
    service = PREFIXES.get(prefix)
    return (service, name) if service and (family == service or prefix not in SHARED_PREFIXES) else None


def _find_model(model: str, own: "Sequence[Provider]", providers: "list[Provider]") -> "ModelInfo | None":
    """Return the model that a name means: at the service of the address if that is known, else at the guessed one."""
    pairs = [(each, model.lower().removeprefix("models/")) for each in own]
    if not own and (guess := _guess_service(model)):
        pairs = [(each, guess[1]) for each in providers if each.id == guess[0]]
    for provider, name in pairs:
        found = provider.find_model(name, all_providers=providers)
        if found and _is_spelled_out(name, found) and _has_rates(found):
            return found
    return None


def _is_spelled_out(name: str, model: "ModelInfo") -> bool:
    """Return whether the data have the name itself, but for a snapshot's date. Their patterns match more names."""
    spellings = {model.id.lower(), *_find_spellings(model.match)}
    return not spellings.isdisjoint({name, SNAPSHOT.sub("", name)})


def _find_spellings(clause: Any) -> Iterator[str]:
    for part in (*getattr(clause, "or_", ()), *getattr(clause, "and_", ())):
        yield from _find_spellings(part)
    if text := getattr(clause, "equals", None) or getattr(clause, "starts_with", None):
        yield text.lower().removesuffix("-")


def _has_rates(model: "ModelInfo") -> bool:
    rates = model.get_prices(datetime.now(UTC))
    return bool(_find_rate(rates.input_mtok, 0) and _find_rate(rates.output_mtok, 0))
