"""Idempotency keys: the producer's own table beside the view, and no part of the fold.

A row is written before its submission is published. It says which job the key stands for, and what the same event can
be made of again: the job's id and the event's time, while whoever repeats the submission brings the rest. An open row
has a lease by the database's clock; who finds it expired may take the submission over.

The functions that write want a transaction. Where several rows are locked, it is in the order of their keys, so that
two batches with keys in common do not wait for each other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, select, update

from jobtape.view import tables
from jobtape.view.sql import bulk, clock

_CHUNK: Final = 500  # keys in one statement
_TRIES: Final = 5

_row = tables.idempotency
_c = tables.idempotency.c


class KeyState(StrEnum):
    """How a submission stands to what its key is known for."""

    NEW = "new"
    """Nobody used the key before: the row is ours, publish."""
    TAKEN_OVER = "taken_over"
    """Somebody did, and never came to an end; the row is ours now."""
    IN_FLIGHT = "in_flight"
    """Somebody else is submitting it just now."""
    ACCEPTED = "accepted"
    """The job was accepted before."""
    REUSED = "reused"
    """The key stands for another submission."""


@dataclass(frozen=True, slots=True)
class KeyedSubmission:
    """``digest``: of the submission, to distinguish another one under the same key; ``time``: the event's."""

    key: str
    digest: str
    job_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """What became of a claim: the job that the key stands for, and its event's time. ``lease_left``: seconds."""

    state_of_key: KeyState
    job_id: str
    time: datetime
    lease_left: float


def claim(
    connection: Connection, scope: str, owner: str, submissions: Sequence[KeyedSubmission], lease: float
) -> dict[str, Claim]:
    """Write the rows of those keys that are new, and take over those that somebody let go, for ``lease`` seconds.

    By key; no key may be given twice. ``owner`` is a name never used before: it shows which rows were written here.
    """
    wanted = {each.key: each for each in sorted(submissions, key=lambda each: each.key)}
    found: dict[str, Claim] = {}
    # A row that was pruned between the two statements is neither written nor found: once more.
    for _ in range(_TRIES):
        missing = {key: each for key, each in wanted.items() if key not in found}
        if not missing:
            break
        now = _now(connection)
        bulk.insert(
            connection, _row, [_as_row(scope, owner, each, now, lease) for each in missing.values()], on_conflict="keep"
        )
        for row in _locked(connection, scope, missing):
            found[row.key] = _judge(row, missing[row.key].digest, owner, now)
    expired = [each.job_id for each in found.values() if each.state_of_key is KeyState.TAKEN_OVER]
    for chunk in _chunks(expired):
        until = clock.now(connection.dialect.name) + lease
        connection.execute(update(_row).where(_c.job_id.in_(chunk)).values(owner=owner, lease_until=until))
    return found


def one(connection: Connection, scope: str, submission: KeyedSubmission) -> Claim | None:
    """How the submission's key stands now, without writing; None when nobody uses it. ``TAKEN_OVER``: it could be."""
    now = clock.now(connection.dialect.name).label("now")
    row = connection.execute(select(_row, now).where(_c.scope == scope, _c.key == submission.key)).first()
    return None if row is None else _judge(row, submission.digest, None, row.now)


def accepted(connection: Connection, job_id: str) -> bool | None:
    """Whether the job's submission is known to have been confirmed; None when it came without a key."""
    row = connection.execute(select(_c.accepted).where(_c.job_id == job_id)).first()
    return None if row is None else bool(row[0])


def mark(connection: Connection, job_ids: Iterable[str]) -> None:
    """These jobs are on the tape. Whoever got the confirm may say so, owner or not."""
    for chunk in _chunks(job_ids):
        connection.execute(update(_row).where(_c.job_id.in_(chunk)).values(accepted=True))


def release(connection: Connection, owner: str, job_ids: Iterable[str]) -> None:
    """End the lease of open rows at once: the next one who comes takes over."""
    for chunk in _chunks(job_ids):
        ours = _c.job_id.in_(chunk) & (_c.owner == owner) & _c.accepted.is_(False)
        connection.execute(update(_row).where(ours).values(lease_until=0.0))


def forget(connection: Connection, owner: str, job_ids: Iterable[str]) -> None:
    """Remove open rows of submissions that were never published."""
    for chunk in _chunks(job_ids):
        connection.execute(delete(_row).where(_c.job_id.in_(chunk), _c.owner == owner, _c.accepted.is_(False)))


def prune(connection: Connection, older_than: float, limit: int) -> int:
    """Remove up to ``limit`` rows written more than ``older_than`` seconds ago; how many it were."""
    too_old = clock.now(connection.dialect.name) - older_than
    # Nobody is kept waiting: what another transaction has locked is left for the next time.
    old = select(_c.job_id).where(_c.at < too_old).order_by(_c.at).limit(limit).with_for_update(skip_locked=True)
    return connection.execute(delete(_row).where(_c.job_id.in_(old))).rowcount


def _now(connection: Connection) -> float:
    return float(connection.execute(select(clock.now(connection.dialect.name))).scalar_one())


def _as_row(scope: str, owner: str, each: KeyedSubmission, now: float, lease: float) -> dict[str, Any]:
    return {
        "scope": scope,
        "key": each.key,
        "digest": each.digest,
        "job_id": each.job_id,
        "time": tables.utc_text(each.time),
        "accepted": False,
        "owner": owner,
        "lease_until": now + lease,
        "at": now,
    }


def _locked(connection: Connection, scope: str, keys: Mapping[str, object]) -> Iterator[Row[Any]]:
    for chunk in _chunks(keys):
        statement = select(_row).where(_c.scope == scope, _c.key.in_(chunk)).order_by(_c.key).with_for_update()
        yield from connection.execute(statement).all()


def _judge(row: Row[Any], digest: str, owner: str | None, now: float) -> Claim:
    left = max(0.0, row.lease_until - now)
    if row.owner == owner:
        state_of_key = KeyState.NEW
    elif row.digest != digest:
        state_of_key = KeyState.REUSED
    elif row.accepted:
        state_of_key = KeyState.ACCEPTED
    else:
        state_of_key = KeyState.IN_FLIGHT if left > 0 else KeyState.TAKEN_OVER
    return Claim(state_of_key, row.job_id, row.time, left)


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(values)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
