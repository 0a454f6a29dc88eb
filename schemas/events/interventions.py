"""Events by which somebody intervenes without a worker: ``cancelled``, ``redriven``, ``released`` and ``signalled``.

The id of each of the first three depends on the run only, so any number of requests end a run or begin the next one
once. Of the signals with one name, the first one in a run is accepted.
"""

from datetime import datetime
from typing import Any

from jobtape.schemas import ids
from jobtape.schemas.events import (
    Cancelled,
    CancelledData,
    CancelReason,
    Redriven,
    RedrivenData,
    Released,
    ReleasedData,
    Signalled,
    SignalledData,
)
from jobtape.schemas.job import Job, JobRun


def cancelled(
    job: Job | JobRun,
    *,
    source: str,
    time: datetime,
    causation_id: str | None = None,
    traceparent: str | None = None,
    reason: CancelReason | None = None,
    duplicate_of: str | None = None,
) -> Cancelled:
    """Return the event that cancels the current run of ``job``. ``reason`` and ``duplicate_of`` are those of
    ``CancelledData``.
    """
    return Cancelled(
        id=ids.run_event_id(job.id, job.run, Cancelled.name),
        source=source,
        subject=job.id,
        time=time,
        correlationid=job.correlation_id,
        causationid=causation_id,
        traceparent=traceparent,
        data=CancelledData(
            job_type=job.type, run=job.run, attempt=job.attempt, reason=reason, duplicate_of=duplicate_of
        ),
    )


def redriven(
    job: Job | JobRun,
    *,
    source: str,
    time: datetime,
    causation_id: str | None = None,
    traceparent: str | None = None,
) -> Redriven:
    """Return the event that begins the next run of ``job``. The projector then places its work."""
    run = job.run + 1
    return Redriven(
        id=ids.run_event_id(job.id, run, Redriven.name),
        source=source,
        subject=job.id,
        time=time,
        correlationid=job.correlation_id,
        causationid=causation_id,
        traceparent=traceparent,
        data=RedrivenData(job_type=job.type, run=run, attempt=1),
    )


def released(job: Job, *, source: str, time: datetime) -> Released:
    """Return the event by which ``job``, which has failed, gives up its ordering key."""
    return Released(
        id=ids.run_event_id(job.id, job.run, Released.name),
        source=source,
        subject=job.id,
        time=time,
        correlationid=job.correlation_id,
        data=ReleasedData(job_type=job.type, run=job.run, attempt=job.attempt),
    )


def signalled(job: Job, signal: str, payload: dict[str, Any], key: str, *, source: str, time: datetime) -> Signalled:
    """Return the event that sends a signal to the current run of ``job``. ``key``: the same for each repetition."""
    return Signalled(
        id=ids.signal_event_id(job.id, job.run, signal, key),
        source=source,
        subject=job.id,
        time=time,
        correlationid=job.correlation_id,
        data=SignalledData(job_type=job.type, run=job.run, attempt=job.attempt, signal=signal, payload=payload),
    )
