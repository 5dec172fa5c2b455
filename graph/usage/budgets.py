"""What a turn and a session may use: at a warning the user is asked whether to go on, at the limit it ends. Pure."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from langchain_core.messages import AIMessage
from langchain_core.messages import ToolCall as RequestedCall

from graph import prices
from graph.conversation import own, own_question
from graph.errors import LimitReached
from graph.settings import Settings
from graph.state import NOTHING, NOTHING_SPENT, Spent, State
from graph.tools.catalog import CONTINUE


class Budget(NamedTuple):
    setting: str
    scope: Literal["turn", "session"]
    measure: Literal["calls", "tokens", "money"]
    limit: Decimal
    unit: str

    @property
    def key(self) -> str:
        """What the user agrees to: another limit is another question."""
        return f"{self.setting}={prices.written(self.limit)}"

    def used(self, spent: Spent) -> Decimal:
        return Decimal(spent[self.scope][self.measure])

    def told(self, spent: Spent) -> str:
        return f"{prices.written(self.used(spent))} of {prices.written(self.limit)} {self.unit} of this {self.scope}"

    def shown(self, spent: Spent) -> dict[str, Any]:
        """As clients see it."""
        number: Callable[[Decimal], Any] = prices.shown if self.measure == "money" else int
        used = self.used(spent)
        left = max(self.limit - used, Decimal(0))
        return {"limit": number(self.limit), "used": number(used), "left": number(left)}


class Budgets:
    def __init__(self, settings: Settings) -> None:
        self._warning = Decimal(str(settings.budget_warning))
        money = settings.currency
        every = [
            Budget("max_model_calls", "turn", "calls", Decimal(settings.max_model_calls), "model calls"),
            Budget("turn_tokens", "turn", "tokens", Decimal(settings.turn_tokens), "tokens"),
            Budget("turn_money", "turn", "money", settings.turn_money, money),
            Budget("session_tokens", "session", "tokens", Decimal(settings.session_tokens), "tokens"),
            Budget("session_money", "session", "money", settings.session_money, money),
        ]
        self._budgets = [each for each in every if each.limit]

    def check(self, spent: Spent | None) -> None:
        """Before a model is asked. Raises LimitReached."""
        for each in self._budgets:
            if each.used(spent or NOTHING_SPENT) >= each.limit:
                raise LimitReached(_over(each))

    def question(self, spent: Spent | None) -> AIMessage | None:
        """What the user has to agree to before a model is asked, as a message that calls for it."""
        spent = spent or NOTHING_SPENT
        near = [each for each in self._budgets if each.used(spent) >= self._warning * each.limit]
        if not (new := [each for each in near if each.key not in spent["agreed"]]):
            return None
        used = ", ".join(each.told(spent) for each in new)
        call = RequestedCall(name=CONTINUE, args={"used": used}, id=f"call_{uuid4().hex}", type="tool_call")
        about = {
            "rule": f"budget.{new[0].setting}",
            "reason": f"The work has used {used}. Approve to go on up to the limit, reject to stop here.",
            "budgets": [each.key for each in new],
        }
        return own("", calls=[call], aside=True, question=about)

    def shown(self, spent: Spent | None) -> dict[str, Any]:
        return {each.setting: each.shown(spent or NOTHING_SPENT) for each in self._budgets}


def _over(budget: Budget) -> str:
    limit = f"{prices.written(budget.limit)} {budget.unit}"
    if budget.measure == "calls":
        return f"The turn was stopped after {limit}. Send a message to go on."
    if budget.scope == "turn":
        return f"The turn was stopped at its limit of {limit}. Send a message to go on."
    setting = budget.setting.upper()
    return f"The session has used up its limit of {limit}. Begin a new one, or have {setting} raised."


def next_turn(spent: Spent | None) -> Spent:
    """The user has said something."""
    spent = spent or NOTHING_SPENT
    return {**spent, "turn": NOTHING, "agreed": [key for key in spent["agreed"] if key.startswith("session")]}


def declined(state: State) -> AIMessage | None:
    """The question, if the user has just said no to it."""
    question = own_question(state)
    return question if question and "rejected" in state["messages"][-1].additional_kwargs else None


def stopped(question: AIMessage) -> str:
    return f"Stopped here: {question.tool_calls[0]['args']['used']} are used. Send a message to go on."


def agreed(state: State, question: AIMessage) -> Spent:
    spent = state.get("spent") or NOTHING_SPENT
    return {**spent, "agreed": [*spent["agreed"], *question.additional_kwargs["question"]["budgets"]]}
