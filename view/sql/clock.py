"""The time of the database, so that leases do not depend on the clocks of the processes."""

from typing import Any, Final

from sqlalchemy import Connection, Double, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class _Now(FunctionElement[float]):
    inherit_cache = True  # SQLAlchemy keeps the compiled statements that contain it
    type = Double()


NOW: Final = _Now()
"""Seconds since 1970 as an SQL expression, at the moment of its evaluation (not at the start of the transaction)."""


@compiles(_Now, "sqlite")
def _on_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(_Now, "postgresql")
def _on_postgresql(*_: Any, **__: Any) -> str:
    return "extract(epoch FROM clock_timestamp())::float8"


def read(connection: Connection) -> float:
    """Return the database's time in seconds since 1970."""
    return connection.execute(select(NOW)).scalar_one()
