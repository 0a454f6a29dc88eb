"""The statements of the outbox, and the one that prunes the inbox. Each function gets a connection in a transaction.

All of them block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select, tuple_, update

from jobtape.outbox.tables import INBOX, OUTBOX
from jobtape.view.sql.clock import NOW

COUNTED: Final = 100_000
"""The most rows that are counted. Counting more would load the database when it has work to do."""
PAGE_BYTES: Final = 16 * 1024 * 1024
"""About how many characters of JSON a forwarder takes at once, so that it needs no more memory."""

_c = OUTBOX.c
_ADD: Final = insert(OUTBOX)


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row that was taken. ``attempts``: how often the job may have been published before."""

    job_id: str
    job_type: str
    job_order: str
    causation_id: str | None
    submitted_at: datetime
    attempts: int
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class PutBack:
    """A row that stays. ``delay``: seconds until it is taken again. ``attempts``: how often its job may have been
    published by now. ``error``: why it cannot be published; None if that is not the row's fault.
    """

    job_id: str
    delay: float
    attempts: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row whose job cannot be published, and why."""

    job_id: str
    job_type: str
    submitted_at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class OutboxState:
    """``depth``: the number of rows, ``COUNTED`` at most. ``oldest``: age in seconds of the oldest one, None without
    rows. ``refused``: how many of the rows have an error.
    """

    depth: int
    oldest: float | None
    refused: int


def add(connection: Connection, row: OutboxRow) -> None:
    """Insert a row."""
    connection.execute(_ADD, {name: getattr(row, name) for name in OutboxRow.__slots__})


def take(connection: Connection, owner: str, seconds: float, limit: int) -> list[OutboxRow]:
    """Take up to ``limit`` rows that are due, in the order of their ids, for ``seconds``. Nobody else takes them
    meanwhile.
    """
    due = select(_c.job_id, func.length(_c.job_order)).where(_c.due <= NOW).order_by(_c.job_id).limit(limit)
    ids: list[str] = []
    room = PAGE_BYTES
    for job_id, length in connection.execute(due.with_for_update(skip_locked=True)):
        if room > 0:
            ids.append(job_id)
        room -= length
    if not ids:
        return []
    # SQLite locks no rows. The condition finds what another forwarder has taken since.
    taken = (
        update(OUTBOX)
        .where(_c.job_id.in_(ids), _c.due <= NOW)
        .values(taken_by=owner, due=NOW + seconds, attempts=_c.attempts + 1)
        .returning(
            _c.job_id, _c.job_type, _c.job_order, _c.causation_id, _c.submitted_at, _c.attempts - 1, _c.traceparent
        )
    )
    rows = [
        OutboxRow(row[0], row[1], row[2], row[3], _utc(row[4]), row[5], row[6]) for row in connection.execute(taken)
    ]
    return sorted(rows, key=lambda row: row.job_id)


def settle(connection: Connection, owner: str, published: Sequence[str], put_back: Sequence[PutBack]) -> None:
    """Delete the rows of the jobs that were ``published``, and release the others if they are still the owner's."""
    if published:
        connection.execute(delete(OUTBOX).where(_c.job_id.in_(published)))
    if put_back:
        released = (
            update(OUTBOX)
            .where(_c.job_id == bindparam("of"), _c.taken_by == owner)
            .values(
                due=NOW + bindparam("delay", type_=_c.due.type),
                attempts=bindparam("times"),
                error=bindparam("reason"),
                taken_by=None,
            )
        )
        values = [{"of": r.job_id, "delay": r.delay, "times": r.attempts, "reason": r.error} for r in put_back]
        connection.execute(released, values)


def state(connection: Connection) -> OutboxState:
    """Return how many rows there are, and how old the oldest is by the clock of this process."""
    some = select(_c.error).limit(COUNTED).subquery()
    depth, refused = connection.execute(select(func.count(), func.count(some.c.error)).select_from(some)).one()
    first = connection.scalar(select(_c.submitted_at).order_by(_c.job_id).limit(1))
    age = None if first is None else max(0.0, (datetime.now(UTC) - _utc(first)).total_seconds())
    return OutboxState(depth, age, refused)


def longest_wait(connection: Connection) -> float | None:
    """Return the age in seconds of the oldest row without an error, by the clock of this process; None without one."""
    first = connection.scalar(select(_c.submitted_at).where(_c.error.is_(None)).order_by(_c.job_id).limit(1))
    return None if first is None else max(0.0, (datetime.now(UTC) - _utc(first)).total_seconds())


def refused(connection: Connection, limit: int) -> list[RefusedRow]:
    """Return the rows with an error, the oldest first."""
    chosen = select(_c.job_id, _c.job_type, _c.submitted_at, _c.error).where(_c.error.is_not(None))
    found = connection.execute(chosen.order_by(_c.job_id).limit(limit))
    return [RefusedRow(row[0], row[1], _utc(row[2]), row[3]) for row in found]


def prune_inbox(connection: Connection, before: datetime, limit: int) -> int:
    """Delete up to ``limit`` rows of the inbox that were recorded before that time; return how many there were."""
    key = INBOX.c.job_id, INBOX.c.run, INBOX.c.step
    # SQLite stores a time without its zone, in UTC.
    moment = before.astimezone(UTC).replace(tzinfo=None) if connection.dialect.name == "sqlite" else before
    old = select(*key).where(INBOX.c.recorded_at < moment).limit(limit)
    gone: Any = connection.execute(delete(INBOX).where(tuple_(*key).in_(old)))
    return int(gone.rowcount)


def remove(connection: Connection, job_id: str) -> bool:
    """Delete a row that has an error. Return whether there was one."""
    gone: Any = connection.execute(delete(OUTBOX).where(_c.job_id == job_id, _c.error.is_not(None)))
    return bool(gone.rowcount)


def _utc(time: datetime) -> datetime:
    # SQLite returns a time without its zone.
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
