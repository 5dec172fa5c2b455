"""The errors that end a run, each with the sentence that the user reads."""

from graph.errors import AgentRuntimeError, Cancelled, Interrupted, LimitReached


class InternalError(AgentRuntimeError):
    """A fault of the service; the log has it under the run's id."""


class ShuttingDown(Exception):
    """The process ends; another one continues the run from its thread."""


def cancellation_error() -> Cancelled:
    return Cancelled("The run was stopped. Send a message to go on.")


def time_limit_error(seconds: float) -> LimitReached:
    return LimitReached(f"The run was stopped after {seconds / 60:g} minutes. Send a message to go on.")


def interruption_error() -> Interrupted:
    return Interrupted("The service stopped twice while it worked on this message. Send it again.")


def internal_error() -> InternalError:
    return InternalError(
        "Something went wrong in the service. Send a message to go on; if it persists, report the request id."
    )
