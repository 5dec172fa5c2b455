"""A database that comes and goes: which of its faults pass, and how often something is tried meanwhile."""

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
"""What a database, or the way to it, raises."""
DATABASE_UNAVAILABLE = "the database is not available"
RETRY_AFTER = "5"
"""Seconds after which a client may ask again."""
RETRY_SECONDS = 8
"""No attempt begins later than this after the first; one takes POOL_SECONDS at most until it has a connection."""

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
"""A connection refused for good: libpq gives no code for it, only the sentence of the server or of pgbouncer."""


def is_transient(error: BaseException) -> bool:
    """Whether the same may work in a moment, without anybody's help."""
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
    """`work` may have taken effect when it is tried again."""
    attempts = AsyncRetrying(
        retry=retry_if_exception(is_transient),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        stop=stop_after_delay(RETRY_SECONDS),
        before_sleep=_log_retry,
        reraise=True,
    )
    return await attempts(work, *args, **kwargs)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("the database failed (%s), trying again", type(error).__name__)
