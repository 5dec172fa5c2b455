"""What keeps a replica from writing to a session that another one works on by now."""

from contextvars import ContextVar
from dataclasses import dataclass


class LeaseLost(Exception):
    """Another replica holds the session's lease; nothing was written."""


@dataclass(frozen=True)
class FencingToken:
    """The lease that a write is made under; the row of `sessions` has to say the same."""

    session_id: str
    owner: str
    epoch: int


FENCING_TOKEN: ContextVar[FencingToken | None] = ContextVar("FENCING_TOKEN", default=None)
"""That of the work that goes on; none in Studio, which has one process."""
