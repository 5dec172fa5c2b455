"""Read the token counts of an answer, in whatever names, types and places services report them."""

from collections.abc import Iterable
from typing import Any

from langchain_core.messages.ai import InputTokenDetails, UsageMetadata

PROMPT_NAMES = ("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens")
COMPLETION_NAMES = ("completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens")
TOTAL_NAMES = ("total_tokens", "totalTokenCount", "totalTokens")
CACHED_NAMES = (
    *("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "num_cached_tokens"),
    *("cachedContentTokenCount", "cacheReadInputTokens"),
)
DETAILS_NAMES = ("prompt_tokens_details", "input_tokens_details")
"""Objects that hold the cached tokens at some services, others have them beside the other counts."""
CACHE_COUNTS_BESIDE_INPUT = (
    *("cache_read_input_tokens", "cache_creation_input_tokens"),
    *("cacheReadInputTokens", "cacheWriteInputTokens"),
)
"""Counts that `input_tokens` of Anthropic and `inputTokens` of Bedrock do not include. Every other count of a prompt
includes its cached tokens."""
MAX_COUNT = 2**53
"""From here on some JSON readers lose precision. Such a number is no count of tokens."""


class UsageReader:
    """The counts of one answer so far.

    Services send them in one event or in several, at the beginning, at the end or always. No count ever falls: a later
    zero means that the service does not repeat it.
    """

    def __init__(self) -> None:
        self._prompt = self._completion = self._total = self._cached = 0

    def add_event(self, event: dict[str, Any], choice: Any) -> None:
        """Read the counts of an event and of its first choice, if they have any."""
        usage = event.get("usage")
        if not usage and isinstance(choice, dict):
            usage = choice.get("usage")
        if not usage and isinstance(groq := event.get("x_groq"), dict):
            usage = groq.get("usage")
        if usage and isinstance(usage, dict):
            self._add_counts(usage)

    def _add_counts(self, usage: dict[str, Any]) -> None:
        prompt = _find_count(usage, PROMPT_NAMES)
        if not _find_count(usage, PROMPT_NAMES[:1]):
            prompt += sum(_parse_count(usage.get(name)) for name in CACHE_COUNTS_BESIDE_INPUT)
        places = [usage, *(details for name in DETAILS_NAMES if isinstance(details := usage.get(name), dict))]
        self._prompt = max(self._prompt, prompt)
        self._completion = max(self._completion, _find_count(usage, COMPLETION_NAMES))
        self._total = max(self._total, _find_count(usage, TOTAL_NAMES))
        self._cached = max(self._cached, *(_find_count(place, CACHED_NAMES) for place in places))

    def build_metadata(self) -> UsageMetadata | None:
        """Return the counts, or None if the service reported none.

        A count that is missing follows from the total; if there is a total only, both are 0. Tokens that are in the
        total only are thoughts, which are paid like the rest of the answer.
        """
        prompt, completion, total = self._prompt, self._completion, self._total
        if prompt and total > prompt + completion:
            completion = total - prompt
        elif completion and not prompt and total > completion:
            prompt = total - completion
        if not (total or prompt or completion):
            return None
        return UsageMetadata(
            input_tokens=prompt,
            output_tokens=completion,
            total_tokens=(prompt + completion) or total,
            input_token_details=InputTokenDetails(cache_read=min(self._cached, prompt)),
        )


def _find_count(usage: dict[str, Any], names: Iterable[str]) -> int:
    """Return the first count that is not 0."""
    return next(filter(None, (_parse_count(usage[name]) for name in names if name in usage)), 0)


def _parse_count(value: Any) -> int:
    """Return a number of tokens, also one that is sent as a float or as text; 0 for a value that is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_COUNT:
        return 0
    return int(value)
