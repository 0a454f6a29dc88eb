"""Reads the sums of ``tallies``, and keeps their table small."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, case, delete, func, literal, select

from jobtape.schemas.events import EVENT_NAMES, Failed, Retrying, decode
from jobtape.schemas.execution.failure_group import line_of
from jobtape.schemas.job import ErrorInfo, JobState
from jobtape.view import checkpoint, tables
from jobtape.view.sql import bulk
from jobtape.view.sql.database import StorePart
from jobtape.view.tallies import ALWAYS, HELD, HOURS_KEPT, RUN, STATE, WAIT, Ages, failure_id

MOST_FAILURES: Final = 10_000
"""Groups of failures that are kept, those with the newest failures."""
_MESSAGE: Final = 500
"""Characters of the message of a failure."""
_STATES: Final = tuple(STATE + state for state in JobState)
_BY_MINUTE: Final = (*EVENT_NAMES, WAIT, RUN)
_FAILURES: Final = (Failed.name, Retrying.name)
_TALLIES: Final = {table.name: table for table in (tables.tally, tables.tally_of_removed)}
_sum = tables.tally.c
_group = tables.failures.c
_n = func.sum(_sum.n)
# Only durations have different buckets here.
_duration = case((_sum.measure.in_((WAIT, RUN)), _sum.bucket), else_=0)


class JobCount(NamedTuple):
    """The number of jobs of a type on a queue in a state."""

    type: str
    queue: str
    state: str
    n: int


@dataclass(frozen=True, slots=True)
class Range:
    """The minutes since 1970 from ``since`` up to but without ``until``, of some job types and queues; none means
    all.
    """

    since: int
    until: int
    types: Sequence[str] = ()
    queues: Sequence[str] = ()

    def where(self) -> list[ColumnElement[bool]]:
        """Return the conditions on the sums."""
        # With the measures, so that the key is used, which begins with them.
        found = [_sum.measure.in_(_BY_MINUTE), _sum.minute >= max(self.since, ALWAYS + 1), _sum.minute < self.until]
        lists = ((_sum.type, self.types), (_sum.queue, self.queues))
        return found + [column.in_(values) for column, values in lists if values]


@dataclass(slots=True)
class Sums:
    """``events``: numbers of accepted events by name. ``waits`` and ``runs``: numbers of durations by bucket."""

    events: dict[str, int] = field(default_factory=dict)
    waits: dict[int, int] = field(default_factory=dict)
    runs: dict[int, int] = field(default_factory=dict)

    def add(self, measure: str, bucket: int, n: int) -> None:
        """Add to one of them."""
        if measure in (WAIT, RUN):
            durations = self.waits if measure == WAIT else self.runs
            durations[bucket] = durations.get(bucket, 0) + n
        elif n:
            self.events[measure] = self.events.get(measure, 0) + n


@dataclass(frozen=True, slots=True)
class FailureCount:
    """A group of failures. ``failed`` and ``retrying``: its events in a range. ``jobs``: those that are failed now.
    ``example``: the newest job with such an error; if no job has it any more, that of the newest event. ``message`` and
    ``line``: of its error; ``line`` is in the file of ``where``.
    """

    id: str
    type: str
    reason: str
    error: str
    where: str | None
    first: datetime
    last: datetime
    failed: int
    retrying: int
    jobs: int
    example: str | None
    message: str | None = None
    line: int | None = None


class OldHour(NamedTuple):
    """Sums of an hour that are to become one or to be dropped. ``table``: its name."""

    table: str
    measure: str
    hour: int


class Statistics(StorePart):
    """Sums of jobs and events. No call reads jobs or events, except for the example of a failure."""

    def jobs(self) -> list[JobCount]:
        """Return the numbers of jobs by type, queue and state, of those whose submission is known."""
        statement = (
            select(_sum.type, _sum.queue, _sum.measure, _n)
            .where(_sum.measure.in_(_STATES), _sum.minute == ALWAYS)
            .group_by(_sum.type, _sum.queue, _sum.measure)
            .having(_n != 0)
        )
        with self.database.reading() as connection:
            rows = connection.execute(statement).all()
        return [JobCount(kind, queue, measure.removeprefix(STATE), int(n)) for kind, queue, measure, n in rows]

    def held(self) -> dict[str, int]:
        """Return the numbers of held jobs by what they may have to wait for: see ``tallies.HELD``."""
        gates = (_sum.measure > HELD) & (_sum.measure < HELD[:-1] + chr(ord(HELD[-1]) + 1))  # a range of the key
        statement = select(_sum.measure, _n).where(gates, _sum.minute == ALWAYS).group_by(_sum.measure).having(_n != 0)
        with self.database.reading() as connection:
            return {measure.removeprefix(HELD): int(n) for measure, n in connection.execute(statement)}

    def totals(self, within: Range) -> dict[tuple[str, str], Sums]:
        """Return the sums by (job type, queue)."""
        statement = select(_sum.type, _sum.queue, _sum.measure, _duration, _n).where(*within.where())
        found: defaultdict[tuple[str, str], Sums] = defaultdict(Sums)
        with self.database.reading() as connection:
            for kind, queue, *rest in connection.execute(
                statement.group_by(_sum.type, _sum.queue, _sum.measure, _duration)
            ):
                found[kind, queue].add(rest[0], rest[1], int(rest[2]))
        return found

    def series(self, within: Range, step: int) -> dict[int, Sums]:
        """Return the sums of each ``step`` minutes from ``within.since`` on, by number, those without events left
        out.
        """
        slot = (_sum.minute - within.since) // step
        statement = select(slot, _sum.measure, _duration, _n).where(*within.where())
        found: defaultdict[int, Sums] = defaultdict(Sums)
        with self.database.reading() as connection:
            for number, measure, bucket, n in connection.execute(statement.group_by(slot, _sum.measure, _duration)):
                found[int(number)].add(measure, bucket, int(n))
        return found

    def events(self, within: Range, step: int) -> dict[int, tuple[int, int]]:
        """Return the numbers of all accepted events and of ``failed`` of each ``step`` minutes, as ``series`` does."""
        slot = (_sum.minute - within.since) // step
        failed = func.sum(case((_sum.measure == Failed.name, _sum.n), else_=0))
        statement = select(slot, _n, failed).where(_sum.measure.in_(EVENT_NAMES), *within.where()).group_by(slot)
        with self.database.reading() as connection:
            return {int(number): (int(n), int(bad)) for number, n, bad in connection.execute(statement)}

    def first_minute(self) -> int | None:
        """Return the first minute that is kept; None when there is none."""
        first = select(func.min(_sum.minute)).where(_sum.minute > ALWAYS)
        with self.database.reading() as connection:
            # One look at the key for each event, instead of a scan.
            found = (connection.execute(first.where(_sum.measure == name)).scalar() for name in EVENT_NAMES)
            return min((minute for minute in found if minute is not None), default=None)

    def failures(
        self, within: Range, limit: int, before: tuple[datetime, str] | None = None, group_ids: Sequence[str] = ()
    ) -> list[FailureCount]:
        """Return at most ``limit`` groups with failures in the range, by the time of their last one, the newest first.

        ``before``: ``last`` and ``id`` of the last one of the previous page. ``group_ids``: only these; none means all.
        """
        counts = select(_sum.bucket, _sum.measure, _n).where(_sum.measure.in_(_FAILURES), *within.where())
        failed = select(_sum.bucket, _n).where(_sum.measure == STATE + JobState.FAILED, _sum.minute == ALWAYS)
        example = (
            select(func.max(tables.jobs.c.id))
            .where(tables.jobs.c.failure == _group.id)
            .scalar_subquery()
            .label("example")
        )
        order = select(_group.id, _group.last).where(_group.type.in_(within.types) if within.types else literal(True))
        if group_ids:
            order = order.where(_group.id.in_(group_ids))
        with self.database.reading() as connection:
            events: defaultdict[str, dict[str, int]] = defaultdict(dict)
            for bucket, name, n in connection.execute(counts.group_by(_sum.bucket, _sum.measure)):
                if n:
                    events[failure_id(bucket)][name] = int(n)
            sorted_ids = sorted(((last, key) for key, last in connection.execute(order) if key in events), reverse=True)
            page = [key for last, key in sorted_ids if before is None or (last, key) < before][:limit]
            still = {failure_id(bucket): int(n) for bucket, n in connection.execute(failed.group_by(_sum.bucket))}
            rows = connection.execute(select(tables.failures, example).where(_group.id.in_(page))).mappings().all()
            newest = select(tables.jobs.c.id, tables.jobs.c.error).where(
                tables.jobs.c.id.in_([row["example"] for row in rows if row["example"] is not None])
            )
            errors = {job: ErrorInfo.model_validate_json(error) for job, error in connection.execute(newest) if error}
            event = tables.history.c
            ended = select(event.cursor, event.job_id, event.event).where(
                event.cursor.in_([row["newest"] for row in rows if row["example"] is None])
            )
            events_left = {cursor: (job, body) for cursor, job, body in connection.execute(ended)}
        groups = {row["id"]: _group_of(row, errors, events_left) for row in rows}
        return [
            FailureCount(
                **groups[key],
                failed=events[key].get(Failed.name, 0),
                retrying=events[key].get(Retrying.name, 0),
                jobs=still.get(key, 0),
            )
            for key in page
            if key in groups
        ]

    def old_hours(self, ages: Ages) -> list[OldHour]:
        """Return what ``trim`` has to work on."""
        found = []
        with self.database.reading() as connection:
            for name, table in _TALLIES.items():
                row = table.c
                old = (row.minute < ages.oldest) | ((row.minute < ages.fine) & (row.minute % 60 != 0))
                hours = select(row.measure, row.minute - row.minute % 60).where(row.minute > ALWAYS, old).distinct()
                found += [OldHour(name, measure, hour) for measure, hour in connection.execute(hours)]
        return found

    def trim(self, owner: str, old: OldHour, ages: Ages) -> bool:
        """Make the minutes of an hour one hour, or drop it if it is too old.

        Returns False, and changes nothing, when ``owner`` is not the active projector.
        """
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            _trim(connection, _TALLIES[old.table], old, keep=old.hour >= ages.oldest)
            return True

    def trim_rest(self, owner: str, now: datetime) -> bool:
        """Remove groups of failures that are too old or too many, and sums of jobs that are zero.

        Returns False, and changes nothing, when ``owner`` is not the active projector.
        """
        newest = select(_group.id).order_by(_group.last.desc()).limit(MOST_FAILURES)
        old = (_group.last < now - timedelta(seconds=HOURS_KEPT)) | _group.id.not_in(newest)
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            connection.execute(delete(tables.failures).where(old))
            connection.execute(
                delete(tables.tally).where(_sum.measure.in_(_STATES), _sum.minute == ALWAYS, _sum.n == 0)
            )
            return True


def _trim(connection: Connection, table: Table, old: OldHour, *, keep: bool) -> None:
    row = table.c
    within = (row.measure == old.measure) & (row.minute >= old.hour) & (row.minute < old.hour + 60)
    if keep:
        within &= row.minute > old.hour
        sums = select(row.type, row.queue, row.bucket, func.sum(row.n)).where(within)
        found = connection.execute(sums.group_by(row.type, row.queue, row.bucket)).all()
        rows = [(old.measure, old.hour, job_type, queue, bucket, int(n)) for job_type, queue, bucket, n in found]
        bulk.insert(connection, table, rows, on_conflict="add")
    connection.execute(delete(table).where(within))


def _group_of(
    row: RowMapping, errors: Mapping[str, ErrorInfo], events_left: Mapping[int, tuple[str, str]]
) -> dict[str, Any]:
    """Return the fields of a group. ``events_left``: job and body of the newest events of groups without example."""
    found = dict(row)
    newest = found.pop("newest")
    error = errors.get(found["example"])
    if newest in events_left:
        found["example"], body = events_left[newest]
        event = decode(body.encode())
        error = event.data.error if isinstance(event, Failed | Retrying) else None
    return found | ({} if error is None else {"message": error.message[:_MESSAGE], "line": line_of(error)})
