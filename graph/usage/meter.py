"""Price the model calls of the nodes, and keep their usage in the state."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from decimal import Decimal

from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime

from graph import prices, wire
from graph.prices import Price
from graph.settings import DEFAULT_CURRENCY, OFFLINE_MODEL, Settings
from graph.state import ZERO_USAGE, State, StateUpdate, ThreadUsage, UsageAmount
from graph.usage.default_prices import DefaultPrice, find_default_prices
from prompts import AGENTS, CLASSIFIER

FREE_PRICE = Price(prompt=Decimal(0), completion=Decimal(0))
Node = Callable[..., Awaitable[StateUpdate]]


class Meter:
    """The prices of the settings, and below them the default prices, applied to model calls."""

    def __init__(self, settings: Settings) -> None:
        self._prices: prices.PriceTable = {OFFLINE_MODEL: FREE_PRICE, **settings.prices} if settings.prices else {}
        self._default_prices = _find_default_prices(settings)
        self._model = settings.llm_model
        self.currency = settings.currency
        if (settings.max_turn_cost or settings.max_session_cost) and not self._has_prices:
            raise ValueError(
                f"A limit of money needs a price of {settings.llm_model}: set AGENT_RUNTIME__PRICES, or take it out."
            )

    @property
    def _has_prices(self) -> bool:
        return bool(self._prices or self._default_prices)

    def price_call(self, call: wire.Usage) -> wire.Usage:
        """Return the usage with its cost, and the exact cost and the model's name in its metadata."""
        metadata = call.metadata or {}
        model = metadata.get("model") or self._model
        price = prices.find_price(self._prices, model) or self._default_prices.get(model)
        cost = None if price is None else price.calculate_cost(call)
        update = {
            "cost": prices.to_json_number(cost),
            "currency": None if cost is None else self.currency,
            "unpriced_calls": 1 if self._has_prices and cost is None else None,
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
        costs = [price.calculate_cost(call) for price in self._prices.values()]
        costs += [price.calculate_cost(call) for price in self._default_prices.values()]
        return max(costs, default=Decimal(0))


def _find_default_prices(settings: Settings) -> Mapping[str, DefaultPrice]:
    """Return the default prices of the models that the settings and the agents name."""
    if not settings.default_prices or settings.currency != DEFAULT_CURRENCY or settings.llm_model == OFFLINE_MODEL:
        return {}
    names = [
        settings.llm_model,
        settings.llm_fallback_model,
        *(agent.model for agent in (CLASSIFIER, *AGENTS.values())),
    ]
    return find_default_prices(tuple(dict.fromkeys(filter(None, names))), settings.llm_proxy_url.strip().lower())


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
