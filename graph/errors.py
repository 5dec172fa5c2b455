"""The errors that a client receives: a sentence to act on, and a stable code."""


class AgentRuntimeError(Exception):
    """The base of all errors in error chunks. `str(error)` is the sentence, `code` never changes."""

    code = "internal"


class LLMUnavailable(AgentRuntimeError):
    """The model could not be reached, answered with a fault, or broke off. A later attempt may succeed."""

    code = "llm_unavailable"


class ContextOverflow(LLMUnavailable):
    """The request is too large for the model. A smaller one may be accepted."""

    def __init__(self, sentence: str, limit: int = 0, counted: int = 0) -> None:
        """`limit` and `counted`: the sizes in tokens that the model's service names; 0 if it does not."""
        super().__init__(sentence)
        self.limit, self.counted = limit, counted
        self.budget = 0
        """The estimated tokens that a smaller request may have. The client of the model sets it."""


class LLMInvalidAnswer(AgentRuntimeError):
    """The model's answer is not a chat completion."""

    code = "llm_invalid_answer"


class InvalidMessage(AgentRuntimeError):
    """The type, a field or the agent of a message does not belong to the protocol."""

    code = "invalid_message"


class InvalidDecision(AgentRuntimeError):
    """The decision is not one of approve, edit and reject, or it is an edit without arguments."""

    code = "invalid_decision"


class CallNotOpen(AgentRuntimeError):
    """The call does not wait for this result or this decision."""

    code = "call_not_open"


class EditRefused(AgentRuntimeError):
    """The gate refuses the edited arguments. The approval stays pending."""

    code = "edit_refused"


class SessionBusy(AgentRuntimeError):
    """Another run did not end in time, too many messages wait, or the message asked not to wait."""

    code = "session_busy"


class LimitReached(AgentRuntimeError):
    """A turn or a session has reached a limit of the settings."""

    code = "limit_reached"


class IdempotencyConflict(AgentRuntimeError):
    """An earlier request had the same key and another body."""

    code = "idempotency_conflict"


class Cancelled(AgentRuntimeError):
    """The user stopped the run."""

    code = "cancelled"


class Interrupted(AgentRuntimeError):
    """The process died during the run, and the run is not executed again."""

    code = "interrupted"


class GraphUnavailable(AgentRuntimeError):
    """The LangGraph server that runs the graph did not accept a request. The request started nothing."""

    def __init__(self, sentence: str = "The graph's server is not available. Try again later.") -> None:
        super().__init__(sentence)


class GraphLost(GraphUnavailable):
    """The connection to the LangGraph server was lost. The result of the run that it executed is not known."""

    def __init__(self) -> None:
        super().__init__("The connection to the graph's server was lost. Its work continues with the next message.")
