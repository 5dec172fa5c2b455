"""What a turn and a session may use: at a warning the user is asked whether to go on, at the limit it ends. Pure."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from langchain_core.messages import AIMessage
from langchain_core.messages import ToolCall as RequestedCall

from graph import prices
from graph.conversation import pending_service_question, service_message
from graph.errors import LimitReached
from graph.marks import ServiceQuestion, is_rejected, question_of
from graph.settings import Settings
from graph.state import ZERO_AMOUNT, ZERO_USAGE, State, ThreadUsage
from graph.tools.catalog import CONTINUE_TOOL


class Budget(NamedTuple):
    setting: str
    scope: Literal["turn", "session"]
    measure: Literal["calls", "tokens", "money"]
    limit: Decimal
    unit: str

    @property
    def key(self) -> str:
        """What the user agrees to: another limit is another question."""
        return f"{self.setting}={prices.format_amount(self.limit)}"

    def amount_used(self, usage: ThreadUsage) -> Decimal:
        return Decimal(usage[self.scope][self.measure])

    def describe(self, usage: ThreadUsage) -> str:
        used, limit = prices.format_amount(self.amount_used(usage)), prices.format_amount(self.limit)
        return f"{used} of {limit} {self.unit} of this {self.scope}"

    def to_json(self, usage: ThreadUsage) -> dict[str, Any]:
        """As clients see it."""
        number: Callable[[Decimal], Any] = prices.to_json_number if self.measure == "money" else int
        used = self.amount_used(usage)
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

    def check_limits(self, usage: ThreadUsage | None) -> None:
        """Before a model is asked. Raises LimitReached."""
        for each in self._budgets:
            if each.amount_used(usage or ZERO_USAGE) >= each.limit:
                raise LimitReached(_limit_message(each))

    def warning_question(self, usage: ThreadUsage | None) -> AIMessage | None:
        """What the user has to agree to before a model is asked, as a message that calls for it."""
        usage = usage or ZERO_USAGE
        near = [each for each in self._budgets if each.amount_used(usage) >= self._warning * each.limit]
        if not (new := [each for each in near if each.key not in usage["agreed"]]):
            return None
        used = ", ".join(each.describe(usage) for each in new)
        call = RequestedCall(name=CONTINUE_TOOL, args={"used": used}, id=f"call_{uuid4().hex}", type="tool_call")
        about: ServiceQuestion = {
            "rule": f"budget.{new[0].setting}",
            "reason": f"The work has used {used}. Approve to go on up to the limit, reject to stop here.",
            "budgets": [each.key for each in new],
        }
        return service_message("", calls=[call], aside=True, question=about)

    def to_json(self, usage: ThreadUsage | None) -> dict[str, Any]:
        return {each.setting: each.to_json(usage or ZERO_USAGE) for each in self._budgets}


def _limit_message(budget: Budget) -> str:
    limit = f"{prices.format_amount(budget.limit)} {budget.unit}"
    if budget.measure == "calls":
        return f"The turn was stopped after {limit}. Send a message to go on."
    if budget.scope == "turn":
        return f"The turn was stopped at its limit of {limit}. Send a message to go on."
    setting = budget.setting.upper()
    return f"The session has used up its limit of {limit}. Begin a new one, or have {setting} raised."


def reset_turn_usage(usage: ThreadUsage | None) -> ThreadUsage:
    """The user has said something."""
    usage = usage or ZERO_USAGE
    return {**usage, "turn": ZERO_AMOUNT, "agreed": [key for key in usage["agreed"] if key.startswith("session")]}


def find_declined_question(state: State) -> AIMessage | None:
    """The question, if the user has just said no to it."""
    question = pending_service_question(state)
    return question if question and is_rejected(state["messages"][-1]) else None


def stop_message(question: AIMessage) -> str:
    return f"Stopped here: {question.tool_calls[0]['args']['used']} are used. Send a message to go on."


def accept_warning(state: State, question: AIMessage) -> ThreadUsage:
    spent = state.get("spent") or ZERO_USAGE
    accepted = (question_of(question) or {"budgets": []})["budgets"]
    return {**spent, "agreed": [*spent["agreed"], *accepted]}
