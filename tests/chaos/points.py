"""Where a replica can be made to die, and what can be taken out of it. Only this page knows names of the product."""

from contextlib import asynccontextmanager
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
    "accepted": Point(TRANSACTION, "after", "accept.<locals>.work"),
    "model asked": Point(("nodes.specialist:complete",), "before"),
    "model answered": Point(("nodes.specialist:complete",), "after"),
    "writes stored": Point(WRITES, "after"),
    "before the checkpoint": Point(CHECKPOINT, "before"),
    "after the checkpoint": Point(CHECKPOINT, "after"),
    "before the outcome": Point(TRANSACTION, "before", "Work._finish.<locals>.finished"),
    "storing the outcome": Point(("sessions.store:finish",), "after"),
    "after the outcome": Point(TRANSACTION, "after", "Work._finish.<locals>.finished"),
    "taking up": Point(("sessions.work:Work.take_up",), "before", most=1),
    "taken up": Point(("sessions.work:Work.take_up",), "after", most=1),
    "attempt counted": Point(TRANSACTION, "after", "Work._again", most=1),
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


def _unlocked(original: Any) -> Any:
    @asynccontextmanager
    async def free(*_: Any, **__: Any) -> Any:
        yield

    return free


WITHOUT: dict[str, dict[str, Any]] = {
    "lease": {"sessions.database:locked_server": _unlocked},
    "input": {"sessions.runs:Runs.recover": _idle},
    "check": {
        "psycopg_pool:AsyncConnectionPool.check_connection": _idle,
        "sessions.database:create_async_engine": _unpinged,
    },
}
"""What replaces what: the replacement is made of the original."""
