"""The points at which a replica can be made to die, and the parts that can be removed from it."""

from typing import Any, Literal, NamedTuple

from tests.chaos import product


class InjectionPoint(NamedTuple):
    """A call of a function. For a transaction, `work` is a part of the qualified name of its function."""

    targets: tuple[str, ...]
    moment: Literal["before", "after"]
    work: str = ""
    max_passes: int = 4
    """A few sessions that work pass the point at least this often."""


INJECTION_POINTS = {
    "accepting": InjectionPoint(product.ADD_RUN, "after"),
    "accepted": InjectionPoint(product.TRANSACT, "after", product.ACCEPT_TRANSACTION),
    "model asked": InjectionPoint(product.COMPLETE, "before"),
    "model answered": InjectionPoint(product.COMPLETE, "after"),
    "writes stored": InjectionPoint(product.PUT_WRITES, "after"),
    "before the checkpoint": InjectionPoint(product.PUT_CHECKPOINT, "before"),
    "after the checkpoint": InjectionPoint(product.PUT_CHECKPOINT, "after"),
    "before the outcome": InjectionPoint(product.TRANSACT, "before", product.FINISH_TRANSACTION),
    "storing the outcome": InjectionPoint(product.FINISH_RUN, "after"),
    "after the outcome": InjectionPoint(product.TRANSACT, "after", product.FINISH_TRANSACTION),
    "picked": InjectionPoint(product.TRANSACT, "after", product.NEXT_RUN_TRANSACTION, max_passes=1),
    "taking up": InjectionPoint(product.RECOVER, "before", max_passes=1),
    "taken up": InjectionPoint(product.RECOVER, "after", max_passes=1),
    "attempt counted": InjectionPoint(product.TRANSACT, "after", product.UPDATE_RUN_TRANSACTION, max_passes=1),
}


def _disable_ping(original: Any) -> Any:
    """Return a function that creates engines which do not ping their connections."""

    def create_unpinged(*args: Any, **options: Any) -> Any:
        return original(*args, **{**options, "pool_pre_ping": False})

    return create_unpinged


def _do_nothing(original: Any) -> Any:
    async def do_nothing(*_: Any, **__: Any) -> None:
        pass

    return do_nothing


def _disable_retry(_: Any) -> Any:
    async def call_once(work: Any, *args: Any, **named: Any) -> Any:
        return await work(*args, **named)

    return call_once


def _ignore_lock(original: Any) -> Any:
    """Return a function that reads a session's row as if no replica had its lease."""

    def read_unlocked_row(*args: Any) -> Any:
        row = original(*args)
        return row and {**row, "held": False}

    return read_unlocked_row


def _skip_lease_check(_: Any) -> Any:
    def lock_without_check(connection: Any, lease: Any) -> Any:
        return product.lock_session(connection, lease.session_id)

    return lock_without_check


def _skip_fence_check(_: Any) -> Any:
    return lambda *_: None


class _IdleStore:
    """A store whose sessions have no unfinished run."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: None) if name == product.FIRST_UNFINISHED else getattr(self._store, name)


REMOVED_PARTS: dict[str, dict[str, Any]] = {
    "lease": {
        product.CHECK_LEASE: _skip_lease_check,
        product.LOCK_SESSION: _ignore_lock,
        product.ADMISSION_STORE: _IdleStore,
        product.CHECK_FENCE: _skip_fence_check,
    },
    "input": {product.TAKE_OVER: _do_nothing},
    "check": {
        product.CHECK_POOLED_CONNECTION: _do_nothing,
        product.CREATE_ENGINE: _disable_ping,
        product.DATABASE_RETRY: _disable_retry,
        product.CHECKPOINT_RETRY: _disable_retry,
    },
}
"""By part, the targets and the functions that make their replacements from the originals.

The check of connections goes together with the retries behind it."""
