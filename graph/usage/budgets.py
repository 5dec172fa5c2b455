"""Limit what a turn and a session may use. At a warning the user is asked, at the limit the turn ends. Pure."""

from collections.abc import Callable
from decimal import Decimal
from typing import Literal, NamedTuple
from uuid import uuid4

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.messages import ToolCall as RequestedCall
from typing_extensions import TypedDict

from graph import prices
from graph.conversation import pending_service_question, service_message
from graph.errors import LimitReached
from graph.marks import ServiceQuestion, is_rejected, question_of
from graph.settings import Settings
from graph.state import ZERO_AMOUNT, ZERO_USAGE, State, ThreadUsage
from graph.tools.catalog import CONTINUE_TOOL


class BudgetStatus(TypedDict):
    """A budget as clients see it. Tokens and calls are integers, money has at most six decimals."""

    limit: float
    used: float
    left: float


class Budget(NamedTuple):
    name: str
    """The name that clients, audit entries and checkpoints hold: the former name of the setting."""
    setting: str
    scope: Literal["turn", "session"]
    measure: Literal["calls", "tokens", "money"]
    limit: Decimal
    unit: str

    @property
    def key(self) -> str:
        """The key by which the user accepts the warning. It holds the limit: another limit is another question."""
        return f"{self.name}={prices.format_amount(self.limit)}"

    def amount_used(self, usage: ThreadUsage) -> Decimal:
        return Decimal(usage[self.scope][self.measure])

    def describe(self, usage: ThreadUsage) -> str:
        used, limit = prices.format_amount(self.amount_used(usage)), prices.format_amount(self.limit)
        return f"{used} of {limit} {self.unit} of this {self.scope}"

    def to_json(self, usage: ThreadUsage) -> BudgetStatus:
        number: Callable[[Decimal], float] = prices.to_json_number if self.measure == "money" else int
        used = self.amount_used(usage)
        left = max(self.limit - used, Decimal(0))
        return {"limit": number(self.limit), "used": number(used), "left": number(left)}


class Budgets:
    """The budgets that the settings limit."""

    def __init__(self, settings: Settings) -> None:
        self._warning = Decimal(str(settings.budget_warning))
        calls, turn_tokens = Decimal(settings.max_turn_model_calls), Decimal(settings.max_turn_tokens)
        session_tokens, money = Decimal(settings.max_session_tokens), settings.currency
        every = [
            Budget("max_model_calls", "max_turn_model_calls", "turn", "calls", calls, "model calls"),
            Budget("turn_tokens", "max_turn_tokens", "turn", "tokens", turn_tokens, "tokens"),
            Budget("turn_money", "max_turn_cost", "turn", "money", settings.max_turn_cost, money),
            Budget("session_tokens", "max_session_tokens", "session", "tokens", session_tokens, "tokens"),
            Budget("session_money", "max_session_cost", "session", "money", settings.max_session_cost, money),
        ]
        self._budgets = [each for each in every if each.limit]

    def check_limits(self, usage: ThreadUsage | None) -> None:
        """Raise LimitReached if a budget is used up. Call it before each model call."""
        for each in self._budgets:
            if each.amount_used(usage or ZERO_USAGE) >= each.limit:
                raise LimitReached(_limit_message(each))

    def warning_question(self, usage: ThreadUsage | None) -> AIMessage | None:
        """Return a question that the user must approve before the next model call; None if no budget is near its limit.

        The question is a message of the service with a call of `CONTINUE_TOOL`.
        """
        usage = usage or ZERO_USAGE
        near = [each for each in self._budgets if each.amount_used(usage) >= self._warning * each.limit]
        if not (new := [each for each in near if each.key not in usage["agreed"]]):
            return None
        used = ", ".join(each.describe(usage) for each in new)
        call = RequestedCall(name=CONTINUE_TOOL, args={"used": used}, id=f"call_{uuid4().hex}", type="tool_call")
        question: ServiceQuestion = {
            "rule": f"budget.{new[0].name}",
            "reason": f"The work has used {used}. Approve to go on up to the limit, reject to stop here.",
            "budgets": [each.key for each in new],
        }
        return service_message("", calls=[call], aside=True, question=question)

    def to_json(self, usage: ThreadUsage | None) -> dict[str, BudgetStatus]:
        """Return each budget by its name."""
        return {each.name: each.to_json(usage or ZERO_USAGE) for each in self._budgets}


def _limit_message(budget: Budget) -> str:
    limit = f"{prices.format_amount(budget.limit)} {budget.unit}"
    if budget.measure == "calls":
        return f"The turn was stopped after {limit}. Send a message to go on."
    if budget.scope == "turn":
        return f"The turn was stopped at its limit of {limit}. Send a message to go on."
    setting = budget.setting.upper()
    return f"The session has used up its limit of {limit}. Start a new session, or have {setting} raised."


def reset_turn_usage(usage: ThreadUsage | None) -> ThreadUsage:
    """Return the usage at the start of a turn: nothing used in the turn, no warning of a turn's budget accepted.

    A warning of a turn's budget is known by its key, which does not begin with "session".
    """
    usage = usage or ZERO_USAGE
    return {**usage, "turn": ZERO_AMOUNT, "agreed": [key for key in usage["agreed"] if key.startswith("session")]}


def closing_message(state: State) -> AIMessage | None:
    """Return the message that ends the turn if the service's question was not approved; None if there is none.

    After a rejection it says so. A client that answers with an error cannot show the question, so its user is asked
    in plain text, and `accept_by_message` takes the next message for the answer.
    """
    if (question := pending_service_question(state)) is None:
        return None
    answer = state["messages"][-1]
    if not isinstance(answer, ToolMessage) or answer.status != "error":
        return None
    used = question.tool_calls[0]["args"]["used"]
    if is_rejected(answer):
        return service_message(f"Stopped here: {used} are used. Send a message to go on.", aside=True)
    mark = question_of(question)
    assert mark is not None
    asked = {"question": True, "suggestions": ["Go on."]}
    return service_message(f"The work has used {used}. Should I go on, up to the limit?", told=asked, question=mark)


def accept_by_message(state: State) -> ThreadUsage | None:
    """Return the usage of the thread at a new message of the user, which accepts the warning that it answers."""
    question = pending_service_question(state)
    return accept_warning(state, question) if question and not question.tool_calls else state.get("spent")


def accept_warning(state: State, question: AIMessage) -> ThreadUsage:
    """Return the usage of the thread with the budgets of the question accepted."""
    usage, mark = state.get("spent") or ZERO_USAGE, question_of(question)
    return {**usage, "agreed": [*usage["agreed"], *(mark["budgets"] if mark else [])]}
