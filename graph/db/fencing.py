"""The fencing token of a lease: it keeps a replica from writing to a session that another one has taken over."""

from dataclasses import dataclass


class LeaseLost(Exception):
    """Another replica has the session's lease; nothing was written."""


@dataclass(frozen=True)
class FencingToken:
    """The lease that a write is made under. A write is refused unless the row in `sessions` has the same values."""

    session_id: str
    owner: str
    epoch: int
