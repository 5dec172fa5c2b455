"""The names of the product that the chaos suite uses; no other module of this folder knows any.

A target is `module:path.to.name`. A transaction is a part of the qualified name of the function that runs in it.
"""

from typing import Any

import server
from cli import __main__ as cli
from graph.settings import Settings
from sessions.store.leases import lock_row

Targets = tuple[str, ...]

TRANSACT: Targets = (
    "sessions.store.database:SQLiteDatabase.transact",
    "sessions.store.database:PostgresDatabase.transact",
)
PUT_CHECKPOINT: Targets = ("graph.checkpoint.base:CachingCheckpointer.aput",)
PUT_WRITES: Targets = (
    "graph.checkpoint.sqlite:SQLiteCheckpointer.aput_writes",
    "graph.checkpoint.postgres:PostgresCheckpointer.aput_writes",
)
ADD_RUN: Targets = ("sessions.store.runs:add_run",)
FINISH_RUN: Targets = ("sessions.store.runs:finish_run",)
COMPLETE: Targets = ("graph.completion.request:stream_reply",)
RECOVER: Targets = ("sessions.runs.recovery:RunRecovery.recover",)

ACCEPT_TRANSACTION = "_accept.<locals>.work"
FINISH_TRANSACTION = "RunExecutor.finish_run.<locals>.store_outcome"
NEXT_RUN_TRANSACTION = "SessionWorker._process_next"
UPDATE_RUN_TRANSACTION = "RunExecutor.update_run"

CHECK_LEASE = "sessions.store.leases:require_lease"
LOCK_SESSION = "sessions.store.leases:lock_row"
ADMISSION_STORE = "sessions.runs.admission:run_rows"
FIRST_UNFINISHED = "first_unfinished"
CHECK_FENCE = "graph.checkpoint.postgres:require_lease"
TAKE_OVER = "sessions.runs.replica:Replica._take_over"
CHECK_POOLED_CONNECTION = "psycopg_pool:AsyncConnectionPool.check_connection"
CREATE_ENGINE = "sessions.store.database:create_async_engine"
DATABASE_RETRY = "sessions.store.database:with_retry"
CHECKPOINT_RETRY = "graph.checkpoint.postgres:with_retry"


def lock_session(connection: Any, session_id: str) -> Any:
    """Lock the session's row and return it, without a check of the lease."""
    return lock_row(connection, session_id)


def has_leases() -> bool:
    """Return whether two processes may serve one database."""
    return "lease_seconds" in Settings.model_fields


def serve() -> None:
    """Run the service as `python server.py` does."""
    server.main()


def verify_audit() -> int:
    """Run the command that checks the audit's chain; return its exit status."""
    return cli.main(["verify"])
