"""Jobs that are not final: their queues, and those whose work waits or was lost.

The reads use the partial indexes ``jobs_open`` and ``jobs_timed``. So a million closed jobs cost nothing.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import ColumnElement, Select, TextClause, bindparam, func, or_, select, text, tuple_

from jobtape.schemas import plainjson
from jobtape.schemas.events import Dropped
from jobtape.schemas.job import FINAL, Job, JobRun, JobState
from jobtape.schemas.keyed_runs import GatedRun
from jobtape.schemas.queueing.gates import FLOW_GROUP, RULE_GROUP
from jobtape.schemas.rules.rules import RulesInForce
from jobtape.view import tables
from jobtape.view.jobs.queries import without_index
from jobtape.view.rows import gates_from_text, job_from_row
from jobtape.view.sql.database import StorePart
from jobtape.view.values import DueJob, HeldJob

_NOT_TIMED = text(f"NOT ({tables.TIMED}) AND state <> 'held'")
_HELD = text(tables.HELD)
_HAS_SLOTS = text(tables.HAS_SLOTS)
_job = tables.jobs.c

_GATED_RUNS = select(
    _job.id,
    _job.type,
    _job.run,
    _job.attempt,
    _job.correlation_id,
    _job.state,
    _job.gates,
    _job.run_at,
    _job.cursor,
    _job.has_slots,
)
_NEXT_HELD = (
    select(_job.id, _job.type, _job.queue, _job.run_at, _job.gates, _job.gate_group, _job.rank)
    .where(_HELD, _job.gate_group == bindparam("gate_group"))
    .where(tuple_(_job.rank, _job.id) > tuple_(bindparam("rank"), bindparam("job_id")))
    .order_by(_job.rank, _job.id)
    .limit(bindparam("most"))
)


class OpenJobs(StorePart):
    """Reads of jobs that are not final."""

    def queues(self) -> list[str]:
        """Return the queues of open jobs, sorted. Reads the index once for each queue, not for each job."""
        found: list[str] = []
        following = select(func.min(_job.queue)).where(self._open)
        with self.database.reading() as connection:
            last = connection.execute(following).scalar()
            while last is not None:
                found.append(last)
                last = connection.execute(following.where(_job.queue > last)).scalar()
        return found

    def oldest(self, queues: Collection[str], now: datetime) -> dict[str, DueJob]:
        """Return the job of each queue that is due longest and is neither held nor running, if there is one."""
        # At the beginning of the index are, besides it, only such jobs.
        other = (JobState.RUNNING.value, JobState.HELD.value)
        waits = (_job.run_at <= now) & _job.state.not_in(other) & ~_job.imported
        statement = select(_job.id, _job.queue, _job.run_at).where(self._open, waits).order_by(_job.run_at).limit(1)
        with self.database.reading() as connection:
            rows = (connection.execute(statement.where(_job.queue == queue)).first() for queue in queues)
            return {row.queue: DueJob(*row) for row in rows if row is not None}

    def overdue(self, queue: str, due: datetime, cursor: int, after: str, limit: int) -> list[Job]:
        """Return open jobs of ``queue`` that were due at ``due`` and have no event after ``cursor``.

        Sorted by id, from the first id after ``after``. Left out are jobs whose work is to be placed, flows, and
        imported jobs, whose work was never on a queue of this broker.
        """
        # Otherwise SQLite would go through all jobs of the queue by id, also those that have ended.
        job_id = _job.id if self.database.dialect == "postgresql" else without_index(_job.id)
        statement = (
            select(tables.jobs)
            .where(self._open, _job.queue == queue, _job.run_at <= due, _job.cursor <= cursor, job_id > after)
            .where(~_job.imported, _NOT_TIMED, func.coalesce(_job.gate_group, "") != FLOW_GROUP)
            .order_by(job_id)
            .limit(limit)
        )
        with self.database.reading() as connection:
            return [job_from_row(row) for row in connection.execute(statement).all()]

    def timed(
        self,
        limit: int,
        without: Collection[str] = (),
        without_dropped: Collection[str] = (),
        without_types: Collection[str] = (),
    ) -> list[DueJob]:
        """Return jobs whose work is to be placed, also those that are not due yet, the earliest first.

        ``without``: queues to leave out. ``without_dropped``: queues whose jobs are left out if the broker dropped
        their work. ``without_types``: job types to leave out.
        """
        statement = self._timed(_job.id, _job.queue, _job.run_at).order_by(_job.run_at, _job.id)
        if without:
            statement = statement.where(_job.queue.not_in(without))
        if without_types:
            statement = statement.where(_job.type.not_in(without_types))
        if without_dropped:
            dropped = (_job.state == JobState.SCHEDULED.value) & func.coalesce(_job.reason, "").in_(get_args(Dropped))
            statement = statement.where(~(_job.queue.in_(without_dropped) & dropped))
        with self.database.reading() as connection:
            return [DueJob(*row) for row in connection.execute(statement.limit(limit)).all()]

    def earliest_timed(self) -> datetime | None:
        """Return when the first job is due whose work is not placed yet and not paused; None when there is none."""
        rules = RulesInForce.of(self.rules())
        statement = self._timed(_job.run_at).order_by(_job.run_at).limit(1)
        if rules.paused_queues:
            statement = statement.where(_job.queue.not_in(rules.paused_queues))
        if rules.paused_types:
            statement = statement.where(_job.type.not_in(rules.paused_types))
        with self.database.reading() as connection:
            return connection.execute(statement).scalar()

    def placed(self, queue: str, limit: int) -> dict[str, int]:
        """Return the jobs whose work was placed on ``queue`` and that have not begun, those due earliest: by id, the
        cursor of the latest event.

        Left out are imported jobs, and those whose next event may be missing, since events after it are not kept: they
        may have been run before a gap of the tape.
        """
        statement = (
            select(_job.id, _job.cursor)
            .where(self._open, _job.queue == queue, _job.state == JobState.QUEUED.value, _job.placed > 0)
            .where(~_job.imported, _job.submitted_at.is_not(None))
            .where(_job.cursor > select(tables.checkpoint.c.horizon).scalar_subquery())
            .order_by(_job.run_at)
            .limit(limit)
        )
        with self.database.reading() as connection:
            return {row.id: row.cursor for row in connection.execute(statement)}

    def queued_with_slots(self, before: datetime) -> dict[str, tuple[str, int]]:
        """Return by queue one job that has slots and whose latest event is a placement before ``before``, and how many
        there are.
        """
        event = tables.history.c
        statement = (
            select(_job.queue, func.min(_job.id), func.count())
            .join(tables.history, (event.job_id == _job.id) & (event.cursor == _job.cursor))
            .where(_HAS_SLOTS, _job.state == JobState.QUEUED.value, event.name == "placed", event.time < before)
            .group_by(_job.queue)
        )
        with self.database.reading() as connection:
            return {queue: (job_id, n) for queue, job_id, n in connection.execute(statement)}

    def held_groups(self) -> list[str]:
        """Return the groups of gates that jobs wait for. Reads the index of all held jobs."""
        with self.database.reading() as connection:
            placed = _job.gate_group.not_in((RULE_GROUP, FLOW_GROUP))
            return list(connection.scalars(select(_job.gate_group).where(_HELD, placed).distinct()))

    def held_before(self, before: datetime, limit: int) -> dict[str, tuple[int, datetime]]:
        """Return for each group of gates of which a held job was due before that time how many there are, and when the
        first one was due: at most ``limit`` groups, the longest first. Reads all held jobs.
        """
        earliest = func.min(_job.run_at)
        placed = _job.gate_group.not_in((RULE_GROUP, FLOW_GROUP))
        statement = select(_job.gate_group, func.count(), earliest).where(_HELD, placed, _job.run_at < before)
        statement = statement.group_by(_job.gate_group).order_by(earliest).limit(limit)
        with self.database.reading() as connection:
            return {group: (n, since) for group, n, since in connection.execute(statement)}

    def held(self, after: Mapping[str, tuple[int, str]], limit: int) -> dict[str, list[HeldJob]]:
        """Return for each group the next jobs that wait for its gates, at most ``limit``, in their order.

        ``after``: by group, the rank and the id of a job; those behind it are returned.
        """
        found = {}
        with self.database.reading() as connection:
            for group, (rank, job_id) in after.items():
                values = {"gate_group": group, "rank": rank, "job_id": job_id, "most": limit}
                found[group] = [
                    HeldJob(
                        row.id, row.type, row.queue, row.run_at, gates_from_text(row.gates), row.gate_group, row.rank
                    )
                    for row in connection.execute(_NEXT_HELD, values)
                ]
        return found

    def rules(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return the id, the type and the payload of each rule that is in force, in their order."""
        columns = select(_job.id, _job.type, _job.payload)
        statement = columns.where(_HELD, _job.gate_group == RULE_GROUP).order_by(_job.rank, _job.id)
        with self.database.reading() as connection:
            rows = connection.execute(statement).all()
        return [(job_id, job_type, plainjson.loads(payload.encode())) for job_id, job_type, payload in rows]

    def with_slots(self) -> list[GatedRun]:
        """Return the runs of the jobs that have slots. Those that have ended keep their ordering key."""
        with self.database.reading() as connection:
            return [_gated_run(row) for row in connection.execute(_GATED_RUNS.where(_HAS_SLOTS))]

    def awaiting_follow_ups(self) -> list[GatedRun]:
        """Return the runs of the jobs that wait for their follow-ups and keep slots meanwhile."""
        statement = _GATED_RUNS.where(_HAS_SLOTS, _job.state == JobState.HELD.value)
        with self.database.reading() as connection:
            return [_gated_run(row) for row in connection.execute(statement)]

    def held_below_others(self, groups: Collection[str], with_unique_keys: bool) -> list[GatedRun]:
        """Return the runs of held jobs of flows, and of held follow-ups, in these groups of gates.

        ``with_unique_keys``: also those that have one, in any group.
        """
        wanted: list[ColumnElement[bool]] = [_job.gate_group.in_(groups)]
        if with_unique_keys:
            wanted.append(_job.gates.contains('"unique":{', autoescape=True))
        statement = _GATED_RUNS.where(_HELD, ~_job.has_slots, _job.flow.is_not(None), or_(*wanted))
        with self.database.reading() as connection:
            return [_gated_run(row) for row in connection.execute(statement)]

    def held_with_keys(self) -> list[GatedRun]:
        """Return the runs of held jobs that have a unique key or a debounce key."""
        texts = ('"unique":{', '"debounce":{')
        keyed = or_(*(_job.gates.contains(text, autoescape=True) for text in texts))
        statement = _GATED_RUNS.where(_HELD, ~_job.has_slots, keyed).order_by(_job.cursor)
        with self.database.reading() as connection:
            return [_gated_run(row) for row in connection.execute(statement)]

    @property
    def _open(self) -> TextClause:
        return tables.OPEN_ON[self.database.dialect]

    def _timed(self, *columns: ColumnElement[Any]) -> Select[Any]:
        return select(*columns).where(tables.TIMED_ON[self.database.dialect])


def _gated_run(row: Any) -> GatedRun:
    job_id, job_type, run, attempt, correlation_id, state, gates, run_at, cursor, has_slots = row
    run_of = JobRun(job_id, job_type, run, attempt, correlation_id)
    # Of held jobs only those have slots that wait for their follow-ups.
    follows = has_slots and state == JobState.HELD
    state = JobState.RUNNING if follows else JobState(state)
    return GatedRun(run_of, gates_from_text(gates), state, run_at, cursor, state not in FINAL, follows)
