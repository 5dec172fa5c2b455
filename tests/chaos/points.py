"""Where a replica can be made to die, and what can be taken out of it. Only this page knows names of the product."""

from typing import Any, Literal, NamedTuple


class Point(NamedTuple):
    """The passing of a function. `work`: for transactions, a part of the qualified name of what runs in it."""

    targets: tuple[str, ...]
    moment: Literal["before", "after"]
    work: str = ""
    most: int = 4
    """It is passed at least so often while a few sessions work."""


TRANSACTION = ("sessions.database:SQLiteDatabase.transact", "sessions.database:PostgresDatabase.transact")
CHECKPOINT = ("graph.checkpointer:Remembering.aput",)
WRITES = ("graph.checkpointer:SQLiteCheckpointer.aput_writes", "graph.checkpointer:PostgresCheckpointer.aput_writes")

POINTS = {
    "accepting": Point(("sessions.store:add_run",), "after"),
    "accepted": Point(TRANSACTION, "after", "_accepted.<locals>.work"),
    "model asked": Point(("graph.asking:complete",), "before"),
    "model answered": Point(("graph.asking:complete",), "after"),
    "writes stored": Point(WRITES, "after"),
    "before the checkpoint": Point(CHECKPOINT, "before"),
    "after the checkpoint": Point(CHECKPOINT, "after"),
    "before the outcome": Point(TRANSACTION, "before", "Work._finish.<locals>.finished"),
    "storing the outcome": Point(("sessions.store:finish",), "after"),
    "after the outcome": Point(TRANSACTION, "after", "Work._finish.<locals>.finished"),
    "picked": Point(TRANSACTION, "after", "Replica._next", most=1),
    "taking up": Point(("sessions.work:Work.take_up",), "before", most=1),
    "taken up": Point(("sessions.work:Work.take_up",), "after", most=1),
    "attempt counted": Point(TRANSACTION, "after", "Work.noted", most=1),
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
        from sessions.leases import locked

        return locked(connection, lease.session_id)

    return checked


def _allowed(_: Any) -> Any:
    return lambda *_: None


class _Idle:
    """The store of a session where nothing goes on."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: None) if name == "first_unfinished" else getattr(self._store, name)


WITHOUT: dict[str, dict[str, Any]] = {
    "lease": {
        "sessions.leases:checked": _unchecked,
        "sessions.leases:locked": _free,
        "sessions.acceptance:store": _Idle,
        "graph.checkpointer:_check": _allowed,
    },
    "input": {"sessions.replica:Replica._take_over": _idle},
    "check": {
        "psycopg_pool:AsyncConnectionPool.check_connection": _idle,
        "sessions.database:create_async_engine": _unpinged,
        "sessions.database:retried": _once,
        "graph.checkpointer:retried": _once,
    },
}
"""What replaces what: the replacement is made of the original. The check goes with the second attempts behind it."""
