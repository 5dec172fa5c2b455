"""Model calls added up: of a run, with each of its calls; of a session, by agent and by purpose.

Money is exact, as text, until it is shown. A sum of no priced call is None: what has no price is not free.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from graph import prices, wire

UsageTotals = dict[str, Any]
"""The counts, `cost`, and what they are made up of."""
COUNT_FIELDS = ("prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens", "model_calls")
BREAKDOWNS = {"agents": "agent", "purposes": "purpose"}


def sum_run_calls(calls: Iterable[wire.Usage]) -> UsageTotals | None:
    """Of priced calls; None if there was none."""
    items = [_totals_of_call(call) for call in calls]
    return {**sum_totals(items), "calls": items} if items else None


def _totals_of_call(call: wire.Usage) -> UsageTotals:
    about = call.metadata or {}
    named = {name: about.get(name) for name in ("agent", "purpose", "model")}
    counts = {name: getattr(call, name) for name in COUNT_FIELDS}
    doubts = {"unpriced_calls": int(about.get("cost") is None), "estimated_calls": call.estimated_calls or 0}
    return {**named, **counts, "cost": about.get("cost"), **doubts}


def sum_totals(parts: Iterable[UsageTotals]) -> UsageTotals:
    """The counts and the cost. Calls that were counted before there were prices have none."""
    known = [*parts]
    counts = {name: sum(each.get(name, 0) for each in known) for name in COUNT_FIELDS}
    costs = [Decimal(each["cost"]) for each in known if each.get("cost") is not None]
    return {
        **counts,
        "cost": str(sum(costs)) if costs else None,
        "unpriced_calls": sum(each.get("unpriced_calls", each.get("model_calls", 0)) for each in known),
        "estimated_calls": sum(each.get("estimated_calls", 0) for each in known),
    }


def merge_totals(before: UsageTotals | None, more: UsageTotals | None) -> UsageTotals | None:
    """Two parts of one run."""
    if not before or not more:
        return before or more
    return {**sum_totals([before, more]), "calls": [*before.get("calls", ()), *more.get("calls", ())]}


def add_run(before: UsageTotals | None, run: UsageTotals | None) -> UsageTotals | None:
    """With one more run."""
    if not run:
        return before
    kept = before or {}
    parts = {name: _add_to_groups(kept.get(name, {}), run["calls"], by) for name, by in BREAKDOWNS.items()}
    return {**sum_totals([kept, run]), **parts}


def _add_to_groups(sums: dict[str, UsageTotals], calls: Iterable[UsageTotals], key: str) -> dict[str, UsageTotals]:
    for call in calls:
        sums = {**sums, call[key]: sum_totals([sums.get(call[key], {}), call])}
    return sums


def to_json(usage: UsageTotals | None) -> dict[str, Any]:
    """The totals as clients see them."""
    totals = sum_totals([usage or {}])
    return {**totals, "cost": prices.to_json_number(totals["cost"])}


def breakdowns_to_json(usage: UsageTotals | None) -> dict[str, Any]:
    return {name: {key: to_json(sums) for key, sums in (usage or {}).get(name, {}).items()} for name in BREAKDOWNS}


def calls_to_json(usage: UsageTotals | None) -> list[dict[str, Any]]:
    """Each of a run."""
    return [_call_to_json(call) for call in (usage or {}).get("calls", ())]


def _call_to_json(call: UsageTotals) -> dict[str, Any]:
    named = {name: call[name] for name in ("agent", "purpose", "model")}
    counts = {name: call[name] for name in COUNT_FIELDS if name != "model_calls"}
    return {**named, **counts, "cost": prices.to_json_number(call["cost"]), "estimated": bool(call["estimated_calls"])}


def usage_chunk(calls: list[wire.Usage]) -> wire.Usage:
    """Of a run, for a client that opted in; of money nothing if there are no prices."""
    totals = sum_totals(_totals_of_call(call) for call in calls)
    return wire.Usage(
        **{name: totals[name] for name in COUNT_FIELDS},
        cost=prices.to_json_number(totals["cost"]),
        currency=next((call.currency for call in calls if call.currency), None),
        unpriced_calls=sum(call.unpriced_calls or 0 for call in calls) or None,
        estimated_calls=totals["estimated_calls"] or None,
    )
