"""Add up the usage of model calls: of a run, with each of its calls; of a session, by agent and by purpose.

Money is exact, as text, until a client sees it. The cost of calls without a price is None, not zero.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

from typing_extensions import TypedDict

from graph import prices, wire

CountField = Literal["prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens", "model_calls"]


class UsageTotals(TypedDict, total=False):
    """The usage of some model calls, as the rows of runs and sessions store it. Older rows lack some of the fields."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int
    model_calls: int
    cost: str | None
    """The cost of the calls that have a price; None if no call has one."""
    unpriced_calls: int
    estimated_calls: int
    """Calls whose tokens the model's service did not report."""
    calls: "list[CallUsage]"
    """The calls of a run, oldest first."""
    agents: "dict[str, UsageTotals]"
    """The parts of a session's totals, by agent."""
    purposes: "dict[str, UsageTotals]"
    """The same, by purpose."""


class CallUsage(UsageTotals):
    """The usage of one call."""

    agent: str
    purpose: str
    model: str


class UsageInfo(TypedDict):
    """Totals as clients see them."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int
    model_calls: int
    cost: float | None
    unpriced_calls: int
    estimated_calls: int


class UsageBreakdowns(TypedDict):
    """The parts of a session's totals as clients see them."""

    agents: dict[str, UsageInfo]
    purposes: dict[str, UsageInfo]


class CallInfo(TypedDict):
    """One call of a run as clients see it."""

    agent: str
    purpose: str
    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: float | None
    estimated: bool


def sum_run_calls(calls: Iterable[wire.Usage]) -> UsageTotals | None:
    """Return the totals of priced calls, with each call; None if there is none."""
    items = [_usage_of_call(call) for call in calls]
    return {**sum_totals(items), "calls": items} if items else None


def _usage_of_call(call: wire.Usage) -> CallUsage:
    metadata = call.metadata or {}
    return CallUsage(
        agent=metadata.get("agent", ""),
        purpose=metadata.get("purpose", ""),
        model=metadata.get("model", ""),
        prompt_tokens=call.prompt_tokens,
        cached_tokens=call.cached_tokens,
        completion_tokens=call.completion_tokens,
        total_tokens=call.total_tokens,
        model_calls=call.model_calls,
        cost=metadata.get("cost"),
        unpriced_calls=int(metadata.get("cost") is None),
        estimated_calls=call.estimated_calls or 0,
    )


def sum_totals(parts: Iterable[UsageTotals]) -> UsageTotals:
    """Return the sum of the counts and costs. Calls that were counted before there were prices have no price."""
    items = [*parts]

    def count(field: CountField) -> int:
        return sum(each.get(field, 0) for each in items)

    costs = [Decimal(cost) for each in items if (cost := each.get("cost")) is not None]
    return UsageTotals(
        prompt_tokens=count("prompt_tokens"),
        cached_tokens=count("cached_tokens"),
        completion_tokens=count("completion_tokens"),
        total_tokens=count("total_tokens"),
        model_calls=count("model_calls"),
        cost=str(sum(costs)) if costs else None,
        unpriced_calls=sum(each.get("unpriced_calls", each.get("model_calls", 0)) for each in items),
        estimated_calls=sum(each.get("estimated_calls", 0) for each in items),
    )


def merge_totals(before: UsageTotals | None, more: UsageTotals | None) -> UsageTotals | None:
    """Return the totals of a run that was executed in two parts."""
    if not before or not more:
        return before or more
    return {**sum_totals([before, more]), "calls": [*before.get("calls", ()), *more.get("calls", ())]}


def add_run(before: UsageTotals | None, run: UsageTotals | None) -> UsageTotals | None:
    """Return the totals of a session with one more run, by agent and by purpose."""
    if not run:
        return before
    session = before or UsageTotals()
    return {
        **sum_totals([session, run]),
        "agents": _add_to_groups(session.get("agents", {}), run["calls"], "agent"),
        "purposes": _add_to_groups(session.get("purposes", {}), run["calls"], "purpose"),
    }


def _add_to_groups(
    groups: dict[str, UsageTotals], calls: Iterable[CallUsage], key: Literal["agent", "purpose"]
) -> dict[str, UsageTotals]:
    for call in calls:
        groups = {**groups, call[key]: sum_totals([groups.get(call[key], {}), call])}
    return groups


def to_json(usage: UsageTotals | None) -> UsageInfo:
    """Return the totals as clients see them; zeros for None."""
    totals = sum_totals([usage or {}])
    return UsageInfo(
        prompt_tokens=totals["prompt_tokens"],
        cached_tokens=totals["cached_tokens"],
        completion_tokens=totals["completion_tokens"],
        total_tokens=totals["total_tokens"],
        model_calls=totals["model_calls"],
        cost=prices.to_json_number(totals["cost"]),
        unpriced_calls=totals["unpriced_calls"],
        estimated_calls=totals["estimated_calls"],
    )


def breakdowns_to_json(usage: UsageTotals | None) -> UsageBreakdowns:
    """Return the parts of a session's totals as clients see them."""
    session = usage or UsageTotals()
    return {
        "agents": {name: to_json(part) for name, part in session.get("agents", {}).items()},
        "purposes": {name: to_json(part) for name, part in session.get("purposes", {}).items()},
    }


def calls_to_json(usage: UsageTotals | None) -> list[CallInfo]:
    """Return the calls of a run as clients see them, oldest first."""
    return [_call_to_json(call) for call in (usage or UsageTotals()).get("calls", ())]


def _call_to_json(call: CallUsage) -> CallInfo:
    return CallInfo(
        agent=call["agent"],
        purpose=call["purpose"],
        model=call["model"],
        prompt_tokens=call["prompt_tokens"],
        cached_tokens=call["cached_tokens"],
        completion_tokens=call["completion_tokens"],
        total_tokens=call["total_tokens"],
        cost=prices.to_json_number(call["cost"]),
        estimated=bool(call["estimated_calls"]),
    )


def usage_chunk(calls: list[wire.Usage]) -> wire.Usage:
    """Return the usage of a run for a client that opted in. Without prices it says nothing about money."""
    totals = sum_totals(_usage_of_call(call) for call in calls)
    return wire.Usage(
        prompt_tokens=totals["prompt_tokens"],
        cached_tokens=totals["cached_tokens"],
        completion_tokens=totals["completion_tokens"],
        total_tokens=totals["total_tokens"],
        model_calls=totals["model_calls"],
        cost=prices.to_json_number(totals["cost"]),
        currency=next((call.currency for call in calls if call.currency), None),
        unpriced_calls=sum(call.unpriced_calls or 0 for call in calls) or None,
        estimated_calls=totals["estimated_calls"] or None,
    )
