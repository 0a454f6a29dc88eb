"""The last sign of life of each worker, as the active projector has collected them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, select

from jobtape.schemas.job import JobState
from jobtape.schemas.messages.worker_sign import GONE_AFTER, SILENT_AFTER, WorkerSign, decode_sign, encode_sign
from jobtape.view import checkpoint, tables
from jobtape.view.rows import storable
from jobtape.view.sql import bulk
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.database import StorePart

_row = tables.workers.c
_job = tables.jobs.c
_SIGNS = select(_row.id, _row.sign, _row.at, (NOW - _row.at).label("age"))


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker as it was at its last sign. ``seen_at``: when it came. ``silent``: the next one is overdue."""

    sign: WorkerSign
    seen_at: datetime
    silent: bool

    @property
    def state(self) -> Literal["alive", "draining", "stopped", "silent"]:
        """The state at the last sign, or ``silent``."""
        return "silent" if self.silent else self.sign.state


class WorkerSigns(StorePart):
    """Reads and writes the signs."""

    def note(self, owner: str, signs: Collection[WorkerSign]) -> bool:
        """Write signs, and remove the workers that have stopped, or are gone and not listed any more.

        Returns False, and writes nothing, when ``owner`` is not the active projector.
        """
        kept = [sign for sign in signs if sign.state != "stopped"]
        stopped = [storable(sign.id) for sign in signs if sign.state == "stopped"]
        insert = bulk.upsert(self.database.dialect, tables.workers).values(at=NOW)
        insert = insert.on_conflict_do_update(index_elements=["id"], set_={"sign": insert.excluded.sign, "at": NOW})
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            old = connection.execute(_SIGNS.where(_row.at < NOW - GONE_AFTER)).all()
            removed = [*stopped, *({row.id for row in old} - _that_run_jobs(connection, old))]
            connection.execute(delete(tables.workers).where(_row.id.in_(removed)))
            if kept:
                connection.execute(insert, [{"id": storable(s.id), "sign": _text(s)} for s in kept])
            return True

    def all(self) -> list[SeenWorker]:
        """Return the workers with a sign in the last ``GONE_AFTER`` seconds, by name."""
        with self.database.reading() as connection:
            return _seen(connection.execute(_SIGNS.where(_row.at >= NOW - GONE_AFTER)).all())

    def listed(self) -> list[SeenWorker]:
        """Return ``all``, and those that are gone but ran jobs that no other worker has begun since."""
        with self.database.reading() as connection:
            rows = connection.execute(_SIGNS).all()
            needed = _that_run_jobs(connection, [row for row in rows if row.age > GONE_AFTER])
        return _seen([row for row in rows if row.age <= GONE_AFTER or row.id in needed])


def _seen(rows: Sequence[Row[Any]]) -> list[SeenWorker]:
    found = [
        SeenWorker(sign, datetime.fromtimestamp(row.at, UTC), row.age > SILENT_AFTER)
        for row in rows
        if (sign := decode_sign(row.sign.encode())) is not None
    ]
    return sorted(found, key=lambda each: (each.sign.name, each.sign.started_at))


def _that_run_jobs(connection: Connection, rows: Sequence[Row[Any]]) -> set[str]:
    """Return the ids of the workers of ``rows`` that have a job which is running and has not been begun since."""
    executions = [
        (row, execution)
        for row in rows
        if (sign := decode_sign(row.sign.encode())) is not None
        for execution in sign.executions
        if not execution.settled
    ]
    if not executions:
        return set()
    running = select(_job.id, _job.run, _job.attempt, _job.started_at).where(
        _job.id.in_({storable(execution.job_id) for _, execution in executions}),
        _job.state == JobState.RUNNING.value,
    )
    jobs = {job.id: job for job in connection.execute(running)}
    return {
        row.id
        for row, execution in executions
        if (job := jobs.get(storable(execution.job_id))) is not None
        and (job.run, job.attempt) == (execution.run, execution.attempt)
        # A later beginning is one by another worker.
        and (job.started_at is None or job.started_at.timestamp() <= row.at)
    }


def _text(sign: WorkerSign) -> str:
    return encode_sign(sign).decode()
