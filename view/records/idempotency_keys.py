"""Idempotency keys: the producer's own table beside the view. The fold does not touch it.

The producer writes a row before it publishes the submission. The row says which job the key is of, and keeps what
is needed to make the same event again: the job's id and the event's time. The rest comes with the repeated submission.
A row that is not accepted yet has a lease; a client that repeats the submission after its end takes the row over.

Where a call locks several rows, it does so in the order of their keys, so that two batches with common keys do not
block each other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, select, update

from jobtape.view import tables
from jobtape.view.sql import bulk, clock, leases
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.database import StorePart

_TRIES: Final = 5

_row = tables.idempotency
_c = tables.idempotency.c


class KeyState(StrEnum):
    """What is known of the key of a submission."""

    NEW = "new"
    """The key was not used before. The row is ours: publish."""
    TAKEN_OVER = "taken_over"
    """An earlier submission did not finish, and its lease has run out. The row is ours."""
    IN_FLIGHT = "in_flight"
    """Another caller is submitting it now."""
    ACCEPTED = "accepted"
    """The job was accepted before."""
    REUSED = "reused"
    """The key belongs to a different submission."""


@dataclass(frozen=True, slots=True)
class KeyedSubmission:
    """What is stored of a submission under a key. ``digest``: of the submission, to recognize a different one under the
    same key. ``time``: of the event.
    """

    key: str
    digest: str
    job_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """The state of a key, the job that was submitted under it, and the time of its event. ``lease_left``: seconds."""

    state: KeyState
    job_id: str
    time: datetime
    lease_left: float


class IdempotencyKeys(StorePart):
    """The rows of the keys. ``owner``: an id used for one submission or batch, so that its rows are recognized."""

    def claim(self, scope: str, owner: str, submissions: Sequence[KeyedSubmission], lease: float) -> dict[str, Claim]:
        """Write the rows of new keys and take over those whose lease has run out, for ``lease`` seconds.

        Returns the claims by key. Each key may occur once in ``submissions``.
        """
        wanted = {each.key: each for each in sorted(submissions, key=lambda each: each.key)}
        found: dict[str, Claim] = {}
        with self.database.writing() as connection:
            # A row that is pruned between the two statements is neither inserted nor found: try again.
            for _ in range(_TRIES):
                missing = {key: each for key, each in wanted.items() if key not in found}
                if not missing:
                    break
                now = clock.read(connection)
                rows = [_as_row(scope, owner, each, now, lease) for each in missing.values()]
                bulk.insert(connection, _row, rows, on_conflict="keep")
                for row in _locked(connection, scope, missing):
                    found[row.key] = _claim(row, missing[row.key].digest, owner, now)
            expired = [each.job_id for each in found.values() if each.state is KeyState.TAKEN_OVER]
            for chunk in bulk.chunks(expired):
                connection.execute(leases.take(_row, owner, lease).where(_c.job_id.in_(chunk)))
        return found

    def state(self, scope: str, submission: KeyedSubmission) -> Claim | None:
        """Read the state of the submission's key; None when it is not used. ``TAKEN_OVER``: it can be taken over."""
        statement = select(_row, NOW.label("now")).where(_c.scope == scope, _c.key == submission.key)
        with self.database.reading() as connection:
            row = connection.execute(statement).first()
        return None if row is None else _claim(row, submission.digest, None, row.now)

    def accepted(self, job_id: str) -> bool | None:
        """Return whether the job's submission is known to be confirmed; None when it came without a key."""
        with self.database.reading() as connection:
            return connection.execute(select(_c.accepted).where(_c.job_id == job_id)).scalar()

    def finish(
        self,
        owner: str,
        *,
        accepted: Iterable[str] = (),
        released: Iterable[str] = (),
        unpublished: Iterable[str] = (),
    ) -> None:
        """Write the outcome of submissions, given by job id.

        ``accepted``: they are on the tape; this is written whoever owns the row. ``released``: the next repeat may take
        them over at once. ``unpublished``: nothing was published, so their rows are removed.
        """
        with self.database.writing() as connection:
            for chunk in bulk.chunks(accepted):
                connection.execute(update(_row).where(_c.job_id.in_(chunk)).values(accepted=True))
            ours = (_c.owner == owner) & _c.accepted.is_(False)
            for chunk in bulk.chunks(released):
                connection.execute(update(_row).where(ours, _c.job_id.in_(chunk)).values(lease_until=0.0))
            for chunk in bulk.chunks(unpublished):
                connection.execute(delete(_row).where(ours, _c.job_id.in_(chunk)))

    def prune(self, older_than: float, limit: int) -> int:
        """Remove up to ``limit`` rows written more than ``older_than`` seconds ago; return their number."""
        # Rows that another transaction has locked are left for the next call.
        old = select(_c.job_id).where(_c.at < NOW - older_than).order_by(_c.at).limit(limit)
        with self.database.writing() as connection:
            found = delete(_row).where(_c.job_id.in_(old.with_for_update(skip_locked=True)))
            return connection.execute(found).rowcount


def _as_row(scope: str, owner: str, each: KeyedSubmission, now: float, lease: float) -> tuple[Any, ...]:
    return (scope, each.key, each.digest, each.job_id, tables.utc_text(each.time), False, owner, now + lease, now)


def _locked(connection: Connection, scope: str, keys: Mapping[str, object]) -> Iterator[Row[Any]]:
    for chunk in bulk.chunks(keys):
        statement = select(_row).where(_c.scope == scope, _c.key.in_(chunk)).order_by(_c.key).with_for_update()
        yield from connection.execute(statement).all()


def _claim(row: Row[Any], digest: str, owner: str | None, now: float) -> Claim:
    left = max(0.0, row.lease_until - now)
    if row.owner == owner:
        state = KeyState.NEW
    elif row.digest != digest:
        state = KeyState.REUSED
    elif row.accepted:
        state = KeyState.ACCEPTED
    else:
        state = KeyState.IN_FLIGHT if left > 0 else KeyState.TAKEN_OVER
    return Claim(state, row.job_id, row.time, left)
