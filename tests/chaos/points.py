"""Where a replica can be made to die, and what can be taken out of it."""

from typing import Any, Literal, NamedTuple

from tests.chaos import product


class Point(NamedTuple):
    """The passing of a function. `work`: for transactions, a part of the qualified name of what runs in it."""

    targets: tuple[str, ...]
    moment: Literal["before", "after"]
    work: str = ""
    most: int = 4
    """It is passed at least so often while a few sessions work."""


POINTS = {
    "accepting": Point(product.ADD_RUN, "after"),
    "accepted": Point(product.TRANSACT, "after", product.ACCEPT_TRANSACTION),
    "model asked": Point(product.COMPLETE, "before"),
    "model answered": Point(product.COMPLETE, "after"),
    "writes stored": Point(product.PUT_WRITES, "after"),
    "before the checkpoint": Point(product.PUT_CHECKPOINT, "before"),
    "after the checkpoint": Point(product.PUT_CHECKPOINT, "after"),
    "before the outcome": Point(product.TRANSACT, "before", product.FINISH_TRANSACTION),
    "storing the outcome": Point(product.FINISH_RUN, "after"),
    "after the outcome": Point(product.TRANSACT, "after", product.FINISH_TRANSACTION),
    "picked": Point(product.TRANSACT, "after", product.NEXT_RUN_TRANSACTION, most=1),
    "taking up": Point(product.RECOVER, "before", most=1),
    "taken up": Point(product.RECOVER, "after", most=1),
    "attempt counted": Point(product.TRANSACT, "after", product.UPDATE_RUN_TRANSACTION, most=1),
}


def _unpinged(original: Any) -> Any:
    """An engine that does not ping its connections."""

    def made(*args: Any, **options: Any) -> Any:
        return original(*args, **{**options, "pool_pre_ping": False})

    return made


def _idle(original: Any) -> Any:
    async def nothing(*_: Any, **__: Any) -> None:
        pass

    return nothing


def _once(_: Any) -> Any:
    async def tried(work: Any, *args: Any, **named: Any) -> Any:
        return await work(*args, **named)

    return tried


def _free(original: Any) -> Any:
    """A session that nobody holds."""

    def locked(*args: Any) -> Any:
        row = original(*args)
        return row and {**row, "held": False}

    return locked


def _unchecked(_: Any) -> Any:
    def checked(connection: Any, lease: Any) -> Any:
        return product.lock_session(connection, lease.session_id)

    return checked


def _allowed(_: Any) -> Any:
    return lambda *_: None


class _Idle:
    """The store of a session where nothing goes on."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: None) if name == product.FIRST_UNFINISHED else getattr(self._store, name)


WITHOUT: dict[str, dict[str, Any]] = {
    "lease": {
        product.CHECK_LEASE: _unchecked,
        product.LOCK_SESSION: _free,
        product.ADMISSION_STORE: _Idle,
        product.CHECK_FENCE: _allowed,
    },
    "input": {product.TAKE_OVER: _idle},
    "check": {
        product.CHECK_POOLED_CONNECTION: _idle,
        product.CREATE_ENGINE: _unpinged,
        product.DATABASE_RETRY: _once,
        product.CHECKPOINT_RETRY: _once,
    },
}
"""What replaces what: the replacement is made of the original. The check goes with the second attempts behind it."""
