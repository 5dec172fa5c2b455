"""What tokens cost, by the name of the model. Exact: money is a Decimal here, and text where it is stored."""

from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

MILLION = 1_000_000
MONEY_PRECISION = Decimal("0.000001")
"""The smallest amount that clients see."""


class TokenCounts(Protocol):
    """The tokens of a model call; the cached ones are among those of the prompt."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Price(BaseModel):
    """Of a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Decimal = Field(ge=0, le=10**9, decimal_places=9, allow_inf_nan=False)
    cached: Decimal | None = Field(None, ge=0, le=10**9, decimal_places=9, allow_inf_nan=False)
    """Of the prompt's tokens that the model's service had at hand; absent: as the others."""
    completion: Decimal = Field(ge=0, le=10**9, decimal_places=9, allow_inf_nan=False)

    def calculate_cost(self, usage: TokenCounts) -> Decimal:
        kept = min(usage.cached_tokens, usage.prompt_tokens)
        read = (usage.prompt_tokens - kept) * self.prompt + kept * (self.prompt if self.cached is None else self.cached)
        return (read + usage.completion_tokens * self.completion) / MILLION


PriceTable = Mapping[str, Price]
"""By a model's name, or by a glob of names; a name that is there goes before globs, and those in their order."""


def find_price(table: PriceTable, model: str) -> Price | None:
    return table.get(model) or next((found for glob, found in table.items() if fnmatchcase(model, glob)), None)


def to_json_number(amount: Decimal | str | None) -> float | None:
    """As a JSON number of at most six decimals."""
    return None if amount is None else float(Decimal(amount).quantize(MONEY_PRECISION))


def format_amount(amount: Decimal) -> str:
    """As a person reads it."""
    return f"{amount.quantize(MONEY_PRECISION).normalize():f}"
