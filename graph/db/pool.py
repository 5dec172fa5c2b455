"""The options that both pools to Postgres share. They work behind pgbouncer in transaction mode."""

from typing import Any

from psycopg.conninfo import conninfo_to_dict

from graph.settings import Settings

POOL_TIMEOUT_SECONDS = 5.0
"""The longest wait for a connection. Chosen, not measured: with the retries a client waits 13 s at most."""

CONNECT_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,  # s, as long as the wait for a connection
    "keepalives_idle": 10,  # s; with two probes of 5 s each, a silent server is noticed after 20 s
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,  # ms, for a connection that waits for the acknowledgement of what it sent
}
"""Defaults that notice a dead server within seconds; the system's own defaults need hours. Chosen, not measured."""

SET_TIMEOUTS = (
    "select set_config('statement_timeout', %(statement)s, true), set_config('lock_timeout', %(lock)s, true),"
    " set_config(case when current_setting('server_version_num')::int < 170000"
    " then 'idle_in_transaction_session_timeout' else 'transaction_timeout' end, %(whole)s, true),"
    " set_config('idle_in_transaction_session_timeout', %(idle)s, true)"
)
"""The first statement of every transaction, since pgbouncer accepts no timeouts at the start of a connection.

The server does not take a client for idle that sleeps in the middle of a pipeline. So from Postgres 17 on the whole
transaction has a timeout as well.
"""


def timeout_parameters(settings: Settings) -> dict[str, str]:
    """Return the parameters of `SET_TIMEOUTS`, in ms.

    An idle holder of a lock is ended after half of the time that others wait for it, so that the wait has an end.
    """
    lock = settings.db_lock_timeout_seconds
    statement = settings.db_statement_timeout_seconds
    # a transaction has few statements, so twice the time of one is enough for the whole
    seconds = {"statement": statement, "whole": 2 * statement, "lock": lock, "idle": lock / 2}
    return {name: str(max(1, round(value * 1000))) for name, value in seconds.items()}


def strip_driver(url: str) -> str:
    """Return the URL without the `+driver` of SQLAlchemy."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


def connect_options(url: str) -> dict[str, Any]:
    """Return the options for psycopg. The URL's own parameters have priority.

    There are no prepared statements: they belong to one connection, and pgbouncer changes connections.
    """
    in_url = conninfo_to_dict(strip_driver(url))
    return {"prepare_threshold": None} | {name: value for name, value in CONNECT_DEFAULTS.items() if name not in in_url}
