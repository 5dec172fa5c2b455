"""Retry the work of a database that is away for some seconds, and tell such faults from permanent ones."""

import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import psycopg
from psycopg_pool import PoolClosed
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_random_exponential

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("agent_runtime.database")

DATABASE_ERRORS = (SQLAlchemyError, psycopg.Error, sqlite3.Error)
"""The errors of a database, and of the connection to it."""
DATABASE_UNAVAILABLE = "the database is not available"
RETRY_AFTER = "5"
"""Seconds after which a client may retry. Chosen, not measured: as long as the wait for a connection."""
RETRY_SECONDS = 8
"""The time after which no further attempt starts. Chosen, not measured: a restart of Postgres takes seconds.

An attempt waits `POOL_TIMEOUT_SECONDS` at most for its connection.
"""

MIN_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.1, 2
"""The bounds of the random delay between attempts, which doubles: a deadlock is over at once, a restart in seconds."""

TRANSIENT_SQLSTATES = {
    "25P03": "idle in transaction for too long",
    "25P04": "a transaction for too long",
    "40001": "serialization failure",
    "40P01": "deadlock",
    "53300": "too many connections",
    "57P01": "terminated by an administrator",
    "57P02": "another backend crashed",
    "57P03": "starting up or shutting down",
    "57P05": "idle for too long",
}
PERMANENT_REFUSAL = re.compile(
    r"FATAL: .*(authentication failed|pg_hba\.conf|does not exist|is not permitted to log in|permission denied)"
    r"|no password supplied|no such (user|database)"
)
"""The sentences of a permanent refusal, by the server or by pgbouncer. libpq gives no code for it."""


def is_transient(error: BaseException) -> bool:
    """Return whether the same work may succeed in a moment, without any repair."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_transient(error.orig))
    if isinstance(error, NoConnection):
        return True
    if not isinstance(error, psycopg.Error) or isinstance(error, PoolClosed):
        return False
    if error.sqlstate:
        return error.sqlstate in TRANSIENT_SQLSTATES or error.sqlstate.startswith("08")
    return isinstance(error, psycopg.OperationalError) and not PERMANENT_REFUSAL.search(str(error))


async def with_retry(work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of `work`, tried again after transient faults. An earlier attempt may have taken effect."""
    attempts = AsyncRetrying(
        retry=retry_if_exception(is_transient),
        wait=wait_random_exponential(multiplier=MIN_DELAY_SECONDS, max=MAX_DELAY_SECONDS),
        stop=stop_after_delay(RETRY_SECONDS),
        before_sleep=_log_retry,
        reraise=True,
    )
    return await attempts(work, *args, **kwargs)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("the database failed (%s); the work is tried again", type(error).__name__)
