"""What models have chosen before: the same request, asked of the same model in the same way, is not asked again."""

from collections.abc import Hashable
from typing import Any, NamedTuple

from cachetools import TTLCache

from graph.settings import Settings


class Choice(NamedTuple):
    agent: str
    confidence: str
    """high, medium or low."""
    reasoning: str
    method: str
    """llm, cache or keywords."""


class RoutingCache:
    """Bounded in number and age, and counted; of one process."""

    def __init__(self, settings: Settings) -> None:
        size, seconds = settings.routing_cache_size, settings.routing_cache_seconds
        self._choices: TTLCache[Hashable, Choice] = TTLCache(max(size, 1), max(seconds, 1e-9))
        self._is_off = not (size and seconds)
        self.model = settings.llm_model
        self.hits = self.misses = 0

    def get(self, key: Hashable) -> Choice | None:
        if self._is_off:
            return None
        found = self.peek(key)
        self.hits, self.misses = self.hits + (found is not None), self.misses + (found is None)
        return found

    def peek(self, key: Hashable) -> Choice | None:
        """Not counted."""
        found = self._choices.get(key)
        return found._replace(method="cache") if found else None

    def put(self, key: Hashable, choice: Choice) -> None:
        if not self._is_off:
            self._choices[key] = choice

    def get_stats(self) -> dict[str, Any]:
        return {"size": len(self._choices), "hits": self.hits, "misses": self.misses}
