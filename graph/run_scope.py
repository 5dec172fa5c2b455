"""The scope of the run that the current task executes: its lease, its cancellation and its grants.

A context variable carries it, since LangGraph calls nodes and savers without a place for such arguments. Outside a run
of the service, in LangGraph Studio for example, the scope is empty.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from graph.cancellation import CancelToken
from graph.db.fencing import FencingToken
from policy.grants import Grant

T = TypeVar("T")


@dataclass(frozen=True)
class RunScope:
    lease: FencingToken | None = None
    """The lease that every write must hold. None: writes are not fenced."""
    cancel_token: CancelToken | None = None
    """Interrupts the run's model call. None: the run cannot be cancelled from outside."""
    load_grants: Callable[[], Awaitable[list[Grant]]] | None = None
    """Reads the session's active grants from the database. None: there are none."""


_SCOPE: ContextVar[RunScope] = ContextVar("RUN_SCOPE", default=RunScope())  # noqa: B039  # frozen


def current_scope() -> RunScope:
    return _SCOPE.get()


@contextmanager
def enter_scope(scope: RunScope) -> Iterator[None]:
    """Make `scope` the current one while the block runs."""
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)


def enter_lease(lease: FencingToken) -> AbstractContextManager[None]:
    """Make the writes of the block subject to `lease`; the rest of the current scope stays."""
    return enter_scope(replace(current_scope(), lease=lease))


async def await_cancellable(call: Coroutine[Any, Any, T]) -> T:
    """Return the result of a model call. Raises the error that the run's cancellation was requested with."""
    cancel_token = current_scope().cancel_token
    return await (cancel_token.guard(call) if cancel_token else call)


async def load_active_grants() -> list[Grant]:
    """Return the grants that the user of the current session has given and that are still active."""
    load = current_scope().load_grants
    return await load() if load else []
