"""Learn from the answers and refusals of the models how much each of them takes.

Our tokens are estimates. A service that reports its own count corrects them, by a ratio for each model.
"""

from collections import OrderedDict
from dataclasses import dataclass

MAX_MODELS = 100
"""Models that a process remembers. The settings and the agents name a few. Chosen, not measured."""
MIN_RATIO, MAX_RATIO = 0.5, 2.0
"""Bounds of the ratio. Prose has 0.7, Cyrillic 0.5, hex and base64 up to 2. A wrong report can do no more harm."""
MIN_PLAUSIBLE_RATIO = 0.25
"""A report below it is ignored: such a service counts only what its cache lacked, or has cut the prompt. Chosen, not
measured."""
MIN_REPORTED_TOKENS = 500
"""A smaller request says little: the format around it weighs too much. Chosen, not measured."""
RATIO_TOLERANCE = 0.05
"""A report that differs by less changes nothing: each change of the room may move the window. Chosen, not measured."""
SIZE_TOLERANCE = 0.05
"""Two estimates of one request differ by the names of its fields, some dozen tokens. A request that was fitted into the
room must not count as too large for that. Chosen, not measured."""
PROMPT_SHARE = 0.8
"""Share of a model's window for the prompt. The rest is for its answer. Chosen, not measured."""
UNKNOWN_SHARE = 0.5
"""Share of a refused request that is sent next if the service names no size. Chosen, not measured: one more attempt has
to be enough."""


@dataclass
class LearnedLimits:
    """The limits of one model."""

    ratio: float = 1.0
    """Tokens that the service counts for an estimated one."""
    max_tokens: float = float("inf")
    """The most tokens of a prompt, as the service counts them."""


class ModelLimits:
    """The learned limits of all models of a process."""

    def __init__(self) -> None:
        self._limits: OrderedDict[str, LearnedLimits] = OrderedDict()

    def compute_budget(self, model: str, max_tokens: float) -> int:
        """Return the estimated tokens that a request may have, of at most `max_tokens` as the service counts them."""
        limits = self._limits.get(model, LearnedLimits())
        return int(min(max_tokens, limits.max_tokens) / limits.ratio)

    def is_too_large(self, model: str, estimated: int) -> bool:
        """Return whether a request of so many estimated tokens is known to be too large."""
        limits = self._limits.get(model, LearnedLimits())
        return estimated * limits.ratio > limits.max_tokens * (1 + SIZE_TOLERANCE)

    def record_usage(self, model: str, estimated: int, reported: int) -> None:
        """Learn from the tokens that a service reports. More than before count at once, less only by halves."""
        if estimated < MIN_REPORTED_TOKENS or reported < estimated * MIN_PLAUSIBLE_RATIO:
            return
        limits = self._get(model)
        ratio = min(max(reported / estimated, MIN_RATIO), MAX_RATIO)
        if abs(ratio - limits.ratio) > RATIO_TOLERANCE * limits.ratio:
            limits.ratio = ratio if ratio > limits.ratio else (ratio + limits.ratio) / 2

    def record_overflow(self, model: str, estimated: int, limit: int, counted: int) -> int:
        """Learn from a refusal, and return the estimated tokens that the next request may have.

        `limit` and `counted` are the sizes that the service names; 0 if it does not.
        """
        limits = self._get(model)
        if limit:
            evidence = (counted or limit) / max(estimated, 1)
            limits.ratio = min(max(limits.ratio, evidence), MAX_RATIO)
            limits.max_tokens = limit * PROMPT_SHARE
            share = PROMPT_SHARE * min(1, limit / counted) if counted else PROMPT_SHARE
        else:
            share = UNKNOWN_SHARE
            limits.max_tokens = min(limits.max_tokens, estimated * UNKNOWN_SHARE * limits.ratio)
        return min(int(estimated * share), self.compute_budget(model, limits.max_tokens))

    def _get(self, model: str) -> LearnedLimits:
        """Return the limits of a model, to change them. The model that was used longest ago is forgotten."""
        limits = self._limits.setdefault(model, LearnedLimits())
        self._limits.move_to_end(model)
        if len(self._limits) > MAX_MODELS:
            self._limits.popitem(last=False)
        return limits
