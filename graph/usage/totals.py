"""Model calls added up: of a run, with each of its calls; of a session, by agent and by purpose.

Money is exact, as text, until it is shown. A sum of no priced call is None: what has no price is not free.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from graph import prices, wire

Bill = dict[str, Any]
"""The counts, `cost`, and what they are made up of."""
COUNTED = ("prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens", "model_calls")
PARTS = {"agents": "agent", "purposes": "purpose"}


def of_run(calls: Iterable[wire.Usage]) -> Bill | None:
    """Of priced calls; None if there was none."""
    items = [_item(call) for call in calls]
    return {**total(items), "calls": items} if items else None


def _item(call: wire.Usage) -> Bill:
    about = call.metadata or {}
    named = {name: about.get(name) for name in ("agent", "purpose", "model")}
    counts = {name: getattr(call, name) for name in COUNTED}
    doubts = {"unpriced_calls": int(about.get("cost") is None), "estimated_calls": call.estimated_calls or 0}
    return {**named, **counts, "cost": about.get("cost"), **doubts}


def total(bills: Iterable[Bill]) -> Bill:
    """The counts and the cost. Calls that were counted before there were prices have none."""
    known = [*bills]
    counts = {name: sum(each.get(name, 0) for each in known) for name in COUNTED}
    costs = [Decimal(each["cost"]) for each in known if each.get("cost") is not None]
    return {
        **counts,
        "cost": str(sum(costs)) if costs else None,
        "unpriced_calls": sum(each.get("unpriced_calls", each.get("model_calls", 0)) for each in known),
        "estimated_calls": sum(each.get("estimated_calls", 0) for each in known),
    }


def joined(before: Bill | None, more: Bill | None) -> Bill | None:
    """Two parts of one run."""
    if not before or not more:
        return before or more
    return {**total([before, more]), "calls": [*before.get("calls", ()), *more.get("calls", ())]}


def of_session(before: Bill | None, run: Bill | None) -> Bill | None:
    """With one more run."""
    if not run:
        return before
    kept = before or {}
    parts = {name: _parted(kept.get(name, {}), run["calls"], by) for name, by in PARTS.items()}
    return {**total([kept, run]), **parts}


def _parted(sums: dict[str, Bill], calls: Iterable[Bill], by: str) -> dict[str, Bill]:
    for call in calls:
        sums = {**sums, call[by]: total([sums.get(call[by], {}), call])}
    return sums


def shown(bill: Bill | None) -> dict[str, Any]:
    """The totals as clients see them."""
    totals = total([bill or {}])
    return {**totals, "cost": prices.shown(totals["cost"])}


def shown_parts(bill: Bill | None) -> dict[str, Any]:
    return {name: {key: shown(sums) for key, sums in (bill or {}).get(name, {}).items()} for name in PARTS}


def shown_calls(bill: Bill | None) -> list[dict[str, Any]]:
    """Each of a run."""
    return [_shown_call(call) for call in (bill or {}).get("calls", ())]


def _shown_call(call: Bill) -> dict[str, Any]:
    named = {name: call[name] for name in ("agent", "purpose", "model")}
    counts = {name: call[name] for name in COUNTED if name != "model_calls"}
    return {**named, **counts, "cost": prices.shown(call["cost"]), "estimated": bool(call["estimated_calls"])}


def as_chunk(calls: list[wire.Usage]) -> wire.Usage:
    """Of a run, for a client that opted in; of money nothing if there are no prices."""
    totals = total(_item(call) for call in calls)
    return wire.Usage(
        **{name: totals[name] for name in COUNTED},
        cost=prices.shown(totals["cost"]),
        currency=next((call.currency for call in calls if call.currency), None),
        unpriced_calls=sum(call.unpriced_calls or 0 for call in calls) or None,
        estimated_calls=totals["estimated_calls"] or None,
    )
