"""Compute the cost of tokens by the name of the model. Money is a Decimal here, and text where it is stored."""

from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Protocol, overload

from pydantic import BaseModel, ConfigDict, Field

MILLION = 1_000_000
MONEY_PRECISION = Decimal("0.000001")
"""The smallest amount that clients see: a millionth, since one token of a cheap model costs about as much."""


class TokenCounts(Protocol):
    """The tokens of a model call. The cached tokens are a part of the prompt's."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Price(BaseModel):
    """The price of a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # 9 digits before and after the point: far more than any price has, and sums stay exact within a Decimal's 28.
    prompt: Decimal = Field(ge=0, le=10**9, decimal_places=9, allow_inf_nan=False)
    cached: Decimal | None = Field(None, ge=0, le=10**9, decimal_places=9, allow_inf_nan=False)
    """The price of prompt tokens that the model's service had cached. Absent: they cost as much as the others."""
    completion: Decimal = Field(ge=0, le=10**9, decimal_places=9, allow_inf_nan=False)

    def calculate_cost(self, usage: TokenCounts) -> Decimal:
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        cached_price = self.prompt if self.cached is None else self.cached
        prompt_cost = (usage.prompt_tokens - cached) * self.prompt + cached * cached_price
        return (prompt_cost + usage.completion_tokens * self.completion) / MILLION


PriceTable = Mapping[str, Price]
"""Prices by a model's name or by a glob. An exact name wins over globs; of several globs the first wins."""


def find_price(table: PriceTable, model: str) -> Price | None:
    return table.get(model) or next((price for glob, price in table.items() if fnmatchcase(model, glob)), None)


@overload
def to_json_number(amount: Decimal | str) -> float: ...
@overload
def to_json_number(amount: None) -> None: ...
def to_json_number(amount: Decimal | str | None) -> float | None:
    """Return the amount as a number of at most six decimals."""
    return None if amount is None else float(Decimal(amount).quantize(MONEY_PRECISION))


def format_amount(amount: Decimal) -> str:
    """Return the amount as a person reads it: at most six decimals, no trailing zeros, no exponent."""
    return f"{amount.quantize(MONEY_PRECISION).normalize():f}"
