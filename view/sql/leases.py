"""Leases on rows: a row has one owner for a number of seconds, until the owner renews or releases the lease.

The tables have the columns ``owner`` and ``lease_until``, in seconds of the database's clock. ``owner`` and ``seconds``
may be bound parameters. Each statement concerns all rows of the table: add a condition before you execute it.
"""

from typing import Any

from sqlalchemy import ColumnElement, Table, Update, or_, update

from jobtape.view.sql.clock import NOW


def take(table: Table, owner: Any, seconds: Any) -> Update:
    """Return the statement that gives ``owner`` the rows that nobody else holds."""
    row = table.c
    free = or_(row.owner.is_(None), row.owner == owner, row.lease_until.is_(None), row.lease_until <= NOW)
    return update(table).where(free).values(owner=owner, lease_until=NOW + seconds)


def renew(table: Table, owner: Any, seconds: Any) -> Update:
    """Return the statement that lets the leases of ``owner``, expired or not, run for ``seconds`` from now."""
    return update(table).where(table.c.owner == owner).values(lease_until=NOW + seconds)


def release(table: Table, owner: str) -> Update:
    """Return the statement that ends the leases of ``owner``."""
    return update(table).where(table.c.owner == owner).values(owner=None, lease_until=None)


def held(table: Table, owner: str) -> ColumnElement[bool]:
    """Return the condition that ``owner`` holds the row and that its lease still runs."""
    return (table.c.owner == owner) & (table.c.lease_until > NOW)
