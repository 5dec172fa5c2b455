"""The database's clock: the only one that leases are judged by, since those of replicas differ."""

from typing import Any

from sqlalchemy import Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class clock(FunctionElement[float]):  # noqa: N801
    """Seconds since 1970, at the moment when the statement runs."""

    type = Float()
    inherit_cache = True


@compiles(clock, "sqlite")
def _compile_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(clock, "postgresql")
def _compile_postgres(*_: Any, **__: Any) -> str:
    return "cast(extract(epoch from clock_timestamp()) as double precision)"
