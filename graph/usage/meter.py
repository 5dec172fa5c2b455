"""Price the model calls of the nodes, and keep their usage in the state."""

from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal

from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime

from graph import prices, wire
from graph.prices import Price
from graph.settings import OFFLINE_MODEL, Settings
from graph.state import ZERO_USAGE, State, StateUpdate, ThreadUsage, UsageAmount

FREE_PRICE = Price(prompt=Decimal(0), completion=Decimal(0))
Node = Callable[..., Awaitable[StateUpdate]]


class Meter:
    """The prices of the settings, applied to model calls."""

    def __init__(self, settings: Settings) -> None:
        self._prices: prices.PriceTable = {OFFLINE_MODEL: FREE_PRICE, **settings.prices} if settings.prices else {}
        self._model = settings.llm_model
        self.currency = settings.currency

    def price_call(self, call: wire.Usage) -> wire.Usage:
        """Return the usage with its cost, and the exact cost and the model's name in its metadata."""
        metadata = call.metadata or {}
        model = metadata.get("model") or self._model
        price = prices.find_price(self._prices, model)
        cost = None if price is None else price.calculate_cost(call)
        update = {
            "cost": prices.to_json_number(cost),
            "currency": None if cost is None else self.currency,
            "unpriced_calls": 1 if self._prices and cost is None else None,
            "metadata": {**metadata, "model": model, "cost": None if cost is None else str(cost)},
        }
        return call.model_copy(update=update)

    def accumulate(self, before: ThreadUsage | None, calls: Iterable[wire.Usage]) -> ThreadUsage:
        """Return the usage of a thread with these calls added."""
        usage = before or ZERO_USAGE
        for call in calls:
            usage = {
                **usage,
                "turn": self._add_call(usage["turn"], call),
                "session": self._add_call(usage["session"], call),
            }
        return usage

    def _add_call(self, amount: UsageAmount, call: wire.Usage) -> UsageAmount:
        return {
            "calls": amount["calls"] + ((call.metadata or {}).get("purpose") == "answer"),
            "tokens": amount["tokens"] + call.total_tokens,
            "money": str(Decimal(amount["money"]) + self._charge_for(call)),
        }

    def _charge_for(self, call: wire.Usage) -> Decimal:
        """Return the cost for the budgets. A call without a price costs as much as the most expensive model.

        Otherwise a model without a price would have no limit.
        """
        cost = (call.metadata or {}).get("cost")
        if cost is not None:
            return Decimal(cost)
        return max((price.calculate_cost(call) for price in self._prices.values()), default=Decimal(0))


def with_metering(node: Node, meter: Meter) -> Node:
    """Return the node with its usage chunks priced and added to the usage of the thread."""

    async def call_node(state: State, runtime: Runtime[wire.StreamOptions], config: RunnableConfig) -> StateUpdate:
        calls: list[wire.Usage] = []

        def emit(chunk: wire.Chunk) -> None:
            if isinstance(chunk, wire.Usage):
                chunk = meter.price_call(chunk)
                calls.append(chunk)
            runtime.stream_writer(chunk)

        update = await node(state, runtime.override(stream_writer=emit), config)
        return (
            {**update, "spent": meter.accumulate(update.get("spent", state.get("spent")), calls)} if calls else update
        )

    return call_node
