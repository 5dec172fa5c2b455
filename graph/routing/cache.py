"""Cache the model's choices: the same request with the same model, prompt and team is not classified again."""

from collections.abc import Hashable
from typing import NamedTuple

from cachetools import TTLCache
from typing_extensions import TypedDict

from graph.settings import Settings


class Choice(NamedTuple):
    """The agent that a request goes to, and the reason."""

    agent: str
    confidence: str
    """high, medium or low."""
    reasoning: str
    method: str
    """llm, cache or keywords."""


class CacheStats(TypedDict):
    """The size of a cache, and its hits and misses since the process started."""

    size: int
    hits: int
    misses: int


class RoutingCache:
    """A cache of one process, bounded in number and in age. It counts hits and misses."""

    def __init__(self, settings: Settings) -> None:
        size, seconds = settings.routing_cache_size, settings.routing_cache_seconds
        self._choices: TTLCache[Hashable, Choice] = TTLCache(max(size, 1), max(seconds, 1e-9))  # it refuses 0
        self._is_off = not (size and seconds)
        self.model = settings.llm_model
        self.hits = self.misses = 0

    def get(self, key: Hashable) -> Choice | None:
        """Return the stored choice or None, and count a hit or a miss."""
        if self._is_off:
            return None
        choice = self.peek(key)
        self.hits, self.misses = self.hits + (choice is not None), self.misses + (choice is None)
        return choice

    def peek(self, key: Hashable) -> Choice | None:
        """Return the stored choice or None without counting."""
        choice = self._choices.get(key)
        return choice._replace(method="cache") if choice else None

    def put(self, key: Hashable, choice: Choice) -> None:
        if not self._is_off:
            self._choices[key] = choice

    def get_stats(self) -> CacheStats:
        return {"size": len(self._choices), "hits": self.hits, "misses": self.misses}
