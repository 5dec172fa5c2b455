"""The life of a run: its states and the transitions between them."""

from enum import StrEnum


class RunStatus(StrEnum):
    """The column `runs.status`."""

    QUEUED = "queued"
    """The message is stored and waits for the runs before it."""
    RUNNING = "running"
    """A replica executes the run under the session's lease, or died while it did."""
    HANDED_OVER = "handed"
    """The replica that executed the run has shut down; the next one continues it, at no loss of an attempt."""
    DONE = "done"
    """The outcome is stored."""


START = "accepted"
WITHDRAWN = "withdrawn"
"""The row is deleted: the message waited for too long, or its session was deleted."""

TRANSITIONS: dict[tuple[str, str], str] = {
    (START, RunStatus.RUNNING): "the session is idle",
    (START, RunStatus.QUEUED): "the session is busy",
    (RunStatus.QUEUED, RunStatus.RUNNING): "admit: the runs before it are done",
    (RunStatus.QUEUED, RunStatus.DONE): "refuse: it cannot be admitted",
    (RunStatus.QUEUED, WITHDRAWN): "withdraw",
    (RunStatus.RUNNING, RunStatus.RUNNING): "recover: the lease expired, one recovery attempt more",
    (RunStatus.RUNNING, RunStatus.HANDED_OVER): "hand over: the replica shuts down",
    (RunStatus.RUNNING, RunStatus.DONE): "finish: the outcome is stored, or the run is given up",
    (RunStatus.HANDED_OVER, RunStatus.RUNNING): "recover: another replica continues it",
    (RunStatus.HANDED_OVER, RunStatus.DONE): "finish: the outcome is read from the thread",
}
"""From state and to state, with the event. `docs/architecture.md` shows them as a diagram."""


def draw_transitions() -> str:
    """Return the transitions as a Mermaid state diagram."""
    names = {START: "[*]", WITHDRAWN: "[*]"}
    lines = [
        f"    {names.get(source, source)} --> {names.get(target, target)}: {event.replace(':', ',')}"
        for (source, target), event in TRANSITIONS.items()
    ]
    return "\n".join(["stateDiagram-v2", *lines, f"    {RunStatus.DONE} --> [*]"])
