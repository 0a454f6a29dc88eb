"""Short functions that make the events of a job. Times are seconds on a counter that the caller passes."""

from datetime import UTC, datetime, timedelta

from jobtape.schemas import events, ids
from jobtape.schemas.job import ErrorInfo, Order

JOB = "01890a5d-ac96-774b-bcce-b302099a8057"
SOURCE = "/jobtape/test"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ORDER = Order(type="add", payload={"x": 1}, queue="default", timeout=60, max_attempts=3)


def at(second: int) -> datetime:
    return EPOCH + timedelta(seconds=second)


def submitted(second: int = 0, job: str = JOB, order: Order = ORDER) -> events.Submitted:
    return events.submitted(job, order, source=SOURCE, time=at(second))


def redriven(run: int, second: int = 0, job: str = JOB) -> events.Redriven:
    return events.Redriven(
        id=ids.run_event_id(job, run, "redriven"),
        source=SOURCE,
        subject=job,
        time=at(second),
        data=events.RedrivenData(job_type="add", run=run, attempt=1),
    )


def placed(
    n: int,
    second: int = 0,
    *,
    run: int = 1,
    attempt: int = 1,
    lost: str | None = None,
    why: events.PlacementReason | None = None,
    job: str = JOB,
) -> events.Placed:
    """The ``n``-th placement of the attempt's work. ``lost``: the lost execution, if one was running."""
    return events.Placed(
        id=ids.attempt_event_id(job, run, attempt, "placed", str(n)),
        source=SOURCE,
        subject=job,
        time=at(second),
        data=events.PlacedData(
            job_type="add",
            run=run,
            attempt=attempt,
            n=n,
            why=why or ("due" if n == 1 else "lost"),
            lost_execution=lost,
            order=ORDER,
        ),
    )


def deferred(
    n: int,
    second: int = 0,
    *,
    run: int = 1,
    attempt: int = 1,
    reason: events.DeferReason = "unknown_type",
    job: str = JOB,
) -> events.Deferred:
    """The deferral of the ``n``-th placement of the attempt's work, for five seconds."""
    return events.Deferred(
        id=ids.attempt_event_id(job, run, attempt, "deferred", str(n)),
        source=SOURCE,
        subject=job,
        time=at(second),
        data=events.DeferredData(
            job_type="add", run=run, attempt=attempt, n=n, reason=reason, until=at(second + 5), since=at(second)
        ),
    )


def cancelled(run: int = 1, second: int = 0, job: str = JOB) -> events.Cancelled:
    return events.Cancelled(
        id=ids.run_event_id(job, run, "cancelled"),
        source=SOURCE,
        subject=job,
        time=at(second),
        data=events.CancelledData(job_type="add", run=run, attempt=1),
    )


def released(run: int = 1, second: int = 0, job: str = JOB) -> events.Released:
    return events.Released(
        id=ids.run_event_id(job, run, "released"),
        source=SOURCE,
        subject=job,
        time=at(second),
        data=events.ReleasedData(job_type="add", run=run, attempt=1),
    )


def signalled(name: str, key: int, second: int = 0, *, run: int = 1, job: str = JOB) -> events.Signalled:
    """The signal of that name with an even ``key``; with an odd one, that its time was over."""
    return events.Signalled(
        id=ids.signal_event_id(job, run, name, str(key)),
        source=SOURCE,
        subject=job,
        time=at(second),
        data=events.SignalledData(
            job_type="add",
            run=run,
            attempt=1,
            signal=name,
            payload=None if key % 2 else {"key": key},
            timed_out=bool(key % 2),
        ),
    )


class Execution:
    """One execution of an attempt, and the events that its worker publishes."""

    def __init__(self, name: str, attempt: int = 1, run: int = 1, job: str = JOB) -> None:
        self.name, self.attempt, self.run, self.job = name, attempt, run, job

    def _id(self, event: str, n: int | None = None) -> str:
        return ids.attempt_event_id(self.job, self.run, self.attempt, event, self.name, n)

    def continued(self, second: int = 0) -> events.Continued:
        return events.Continued(
            id=self._id("continued"),
            source=SOURCE,
            subject=self.job,
            time=at(second),
            data=events.ContinuedData(
                job_type="add",
                run=self.run,
                attempt=self.attempt,
                execution=self.name,
                worker="w",
                started_at=at(second),
                duration=1.0,
                follow_ups={"nodes": {self.name: {}}},
            ),
        )

    def started(self, second: int = 0) -> events.Started:
        data = events.StartedData(
            job_type="add", run=self.run, attempt=self.attempt, execution=self.name, worker=f"w-{self.name}"
        )
        return events.Started(id=self._id("started"), source=SOURCE, subject=self.job, time=at(second), data=data)

    def progressed(self, n: int, second: int = 0) -> events.Progressed:
        data = events.ProgressedData(
            job_type="add", run=self.run, attempt=self.attempt, execution=self.name, n=n, fraction=min(1.0, n / 10)
        )
        return events.Progressed(
            id=self._id("progressed", n), source=SOURCE, subject=self.job, time=at(second), data=data
        )

    def retrying(self, second: int = 0) -> events.Retrying:
        data = events.RetryingData(
            job_type="add",
            run=self.run,
            attempt=self.attempt,
            execution=self.name,
            error=ErrorInfo(type="ValueError", message=f"{self.name} tries again"),
            reason="error",
            next_at=at(second + 5),
        )
        return events.Retrying(id=self._id("retrying"), source=SOURCE, subject=self.job, time=at(second), data=data)

    def succeeded(self, second: int = 0) -> events.Succeeded:
        data = events.SucceededData(
            job_type="add",
            run=self.run,
            attempt=self.attempt,
            execution=self.name,
            worker=f"w-{self.name}",
            result=f"by {self.name}",
            started_at=at(second - 1),
            duration=1,
        )
        return events.Succeeded(id=self._id("succeeded"), source=SOURCE, subject=self.job, time=at(second), data=data)

    def failed(self, second: int = 0) -> events.Failed:
        data = events.FailedData(
            job_type="add",
            run=self.run,
            attempt=self.attempt,
            error=ErrorInfo(type="ValueError", message=f"{self.name} gave up"),
            reason="error",
            execution=self.name,
        )
        return events.Failed(id=self._id("failed"), source=SOURCE, subject=self.job, time=at(second), data=data)
