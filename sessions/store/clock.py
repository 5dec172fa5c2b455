"""The database's clock. Leases expire by no other clock, since the clocks of replicas differ."""

from typing import Any

from sqlalchemy import Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class clock(FunctionElement[float]):  # noqa: N801
    """The seconds since 1970 when the statement runs, as an SQL expression."""

    type = Float()
    inherit_cache = True


@compiles(clock, "sqlite")
def _compile_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(clock, "postgresql")
def _compile_postgres(*_: Any, **__: Any) -> str:
    return "cast(extract(epoch from clock_timestamp()) as double precision)"
