"""What the pools to Postgres have in common. All of it works behind pgbouncer in transaction mode."""

from typing import Any

from psycopg.conninfo import conninfo_to_dict

from graph.settings import Settings

POOL_TIMEOUT_SECONDS = 5.0
"""How long to wait for a connection."""

CONNECT_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
"""So that a server that is gone without a word is noticed in seconds."""

SET_TIMEOUTS = (
    "select set_config('statement_timeout', %(statement)s, true), set_config('lock_timeout', %(lock)s, true),"
    " set_config(case when current_setting('server_version_num')::int < 170000"
    " then 'idle_in_transaction_session_timeout' else 'transaction_timeout' end, %(whole)s, true),"
    " set_config('idle_in_transaction_session_timeout', %(idle)s, true)"
)
"""The first statement of every transaction: pgbouncer takes no timeouts at the start of a connection.

A client that sleeps in the middle of a pipeline is not idle to its server; from Postgres 17 on the whole is timed too.
"""


def timeout_parameters(settings: Settings) -> dict[str, str]:
    """The parameters of TIMEOUTS, in ms. Who waits for a lock outlasts a holder who sleeps, or whose host is gone."""
    lock = settings.db_lock_timeout_seconds
    statement = settings.db_statement_timeout_seconds
    seconds = {"statement": statement, "whole": 2 * statement, "lock": lock, "idle": lock / 2}
    return {name: str(max(1, round(value * 1000))) for name, value in seconds.items()}


def strip_driver(url: str) -> str:
    """Without the `+driver` that SQLAlchemy knows."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


def connect_options(url: str) -> dict[str, Any]:
    """For psycopg; what the URL itself says goes before. Prepared statements are a matter of one connection: none."""
    said = conninfo_to_dict(strip_driver(url))
    return {"prepare_threshold": None} | {name: value for name, value in CONNECT_DEFAULTS.items() if name not in said}
