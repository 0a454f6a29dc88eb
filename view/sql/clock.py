"""The database's clock: leases are measured by it, so it does not matter how the clocks of projectors differ."""

from typing import Any

from sqlalchemy import ColumnElement, Double, literal_column


def now(dialect: str) -> ColumnElement[float]:
    """Seconds since 1970 as an SQL expression, at the moment it is evaluated (not at the transaction's start)."""
    text: dict[str, Any] = {
        "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
        "postgresql": "extract(epoch FROM clock_timestamp())::float8",
    }
    return literal_column(text[dialect], Double)
