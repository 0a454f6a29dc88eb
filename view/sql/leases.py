"""Leases on rows: one owner at a time, for so many seconds by the database's clock, until it renews or releases them.

The tables have the columns ``owner`` and ``lease_until``. All functions want a transaction that may write.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, Update, or_, update

from jobtape.view.sql import clock


def taking(connection: Connection, table: Table, owner: str, seconds: float) -> Update:
    """Return the statement that gives ``owner`` the rows that nobody else holds now; add a condition and execute it."""
    row, now = table.c, clock.now(connection.dialect.name)
    free = or_(row.owner.is_(None), row.owner == owner, row.lease_until.is_(None), row.lease_until <= now)
    return update(table).where(free).values(owner=owner, lease_until=now + seconds)


def renewing(connection: Connection, table: Table, owner: str, seconds: float) -> Update:
    """Return the statement that lets the leases of ``owner`` run for ``seconds`` from now, expired or not."""
    until = clock.now(connection.dialect.name) + seconds
    return update(table).where(table.c.owner == owner).values(lease_until=until)


def releasing(table: Table, owner: str) -> Update:
    """Return the statement that ends the leases of ``owner``."""
    return update(table).where(table.c.owner == owner).values(owner=None, lease_until=None)


def held(connection: Connection, table: Table, owner: str) -> ColumnElement[Any]:
    """Return the condition that ``owner`` holds the row and that the lease still runs."""
    return (table.c.owner == owner) & (table.c.lease_until > clock.now(connection.dialect.name))
