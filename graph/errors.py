"""The one family of errors: raised with a sentence its reader can act on, answered with a stable code."""


class AgentRuntimeError(Exception):
    """Base of what is said to a client in an error chunk. `str(error)` is the sentence, `code` never changes."""

    code = "internal"


class LLMUnavailable(AgentRuntimeError):
    """The model could not be reached, answered with a fault, or broke off; asking again later may help."""

    code = "llm_unavailable"


class LLMInvalidAnswer(AgentRuntimeError):
    """The model answered, but with something that is no chat completion."""

    code = "llm_invalid_answer"


class InvalidMessage(AgentRuntimeError):
    """A message whose type, fields or agent are not those of the protocol."""

    code = "invalid_message"


class InvalidDecision(AgentRuntimeError):
    """A decision that is none of approve, edit and reject, or an edit without arguments."""

    code = "invalid_decision"


class CallNotOpen(AgentRuntimeError):
    """A result or a decision for a call that does not wait for it."""

    code = "call_not_open"


class EditRefused(AgentRuntimeError):
    """Edited arguments that the gate does not let through; the approval stays pending."""

    code = "edit_refused"


class SessionBusy(AgentRuntimeError):
    """Another run of the session did not end in time."""

    code = "session_busy"


class LimitReached(AgentRuntimeError):
    """A turn used up what the settings allow it."""

    code = "limit_reached"


class IdempotencyConflict(AgentRuntimeError):
    """The key of an earlier request, with another body."""

    code = "idempotency_conflict"


class Cancelled(AgentRuntimeError):
    """The user stopped the run."""

    code = "cancelled"


class Interrupted(AgentRuntimeError):
    """The process died under the run, and it is not done again."""

    code = "interrupted"


class GraphUnavailable(AgentRuntimeError):
    """The LangGraph server that runs the graph did not take a request; nothing was begun by it."""

    def __init__(self, sentence: str = "The graph's server is not available. Send it again later.") -> None:
        super().__init__(sentence)


class GraphLost(GraphUnavailable):
    """What came of a run that was begun there is not known."""

    def __init__(self) -> None:
        super().__init__("The graph's server was lost. What it worked on is taken up with the next message.")
