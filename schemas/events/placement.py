"""The projector's events that place work and fail lost jobs, and the event by which workers and publishers defer work.

A job whose work is not on a queue *awaits placement* (``Job.awaits_placement``): it was submitted for later, it is held
until its gates are open, its attempt failed and another follows, it was redriven, or its work was deferred. The
projector places its work when the time has come. It derives the placements from the view alone, so the same tape gives
the same placements.

All functions are pure and total. The same fact has the same event id however often it is computed.
"""

from datetime import datetime, timedelta
from typing import Final, Literal, cast

from jobtape.schemas import ids
from jobtape.schemas.events import (
    DeferReason,
    Deferred,
    DeferredData,
    Failed,
    FailedData,
    NewerWork,
    Placed,
    PlacedData,
    PlacementReason,
    Submitted,
    WorkEvent,
    placement_number,
)
from jobtape.schemas.job import ErrorInfo, Job, JobState

MAX_RESCUES: Final = 3
"""How often lost work of one run is placed again before the run fails."""
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds until deferred work is placed again. The wait grows with the time since the work was deferred first."""

_FAILURES: Final[dict[Literal["lost", "given_up"], Literal["lost", "crash_loop"]]] = {
    "lost": "lost",
    "given_up": "crash_loop",
}


def placement_id(job: Job) -> str:
    """Return the event id of the next placement of an open job."""
    return ids.attempt_event_id(job.id, job.run, job.attempt_due, Placed.name, str(job.placed + 1))


def placement(job: Job, *, source: str, time: datetime, fence: int, traceparent: str | None = None) -> Placed | None:
    """Return the event that places the work of a job that awaits placement; None when the order is not known.

    ``fence``: the cursor up to which the tape was folded when the placement was decided. ``traceparent``: the trace
    context of the placement, by default that of the submission.
    """
    return _placed(job, "due", source, time, fence, traceparent)


def rescue(
    job: Job, why: Literal["lost", "given_up"], *, source: str, time: datetime, fence: int
) -> Placed | Failed | None:
    """Return the event that places the lost work of an open job again, or fails its run after ``MAX_RESCUES``.

    None when the order is not known.
    """
    if job.rescues >= MAX_RESCUES and job.order is not None:
        what = "its work has disappeared" if why == "lost" else "the broker has given up delivering it"
        message = f"{what} {job.rescues + 1} times. Find out why with `jobtape doctor`, then redrive it"
        return failure(job, _FAILURES[why], message, source=source, time=time)
    return _placed(job, why, source, time, fence)


def failure(job: Job, reason: Literal["lost", "crash_loop"], message: str, *, source: str, time: datetime) -> Failed:
    """Return the event that fails the current run of an open job, which no worker will finish."""
    return Failed(
        id=ids.attempt_event_id(job.id, job.run, job.attempt_due, Failed.name, reason),
        source=source,
        subject=job.id,
        time=time,
        correlationid=job.correlation_id,
        traceparent=job.traceparent,
        data=FailedData(
            job_type=job.type,
            run=job.run,
            attempt=job.attempt_due,
            reason=reason,
            error=ErrorInfo(type="".join(part.title() for part in reason.split("_")), message=message),
        ),
    )


def deferral(work: WorkEvent | NewerWork, reason: DeferReason, *, source: str, time: datetime) -> Deferred:
    """Return the event that defers work which cannot be run now. The projector places it again."""
    since = deferred_since(work, reason, time)
    wait = min(max((time - since).total_seconds(), SHORTEST_WAIT), LONGEST_WAIT)
    n = placement_number(work)
    return Deferred(
        id=ids.attempt_event_id(work.subject, work.data.run, work.data.attempt, Deferred.name, str(n)),
        source=source,
        subject=work.subject,
        time=time,
        correlationid=work.correlationid,
        traceparent=work.traceparent,
        data=DeferredData(
            job_type=work.data.job_type,
            run=work.data.run,
            attempt=work.data.attempt,
            n=n,
            reason=reason,
            until=time + timedelta(seconds=wait),
            since=since,
        ),
    )


def deferred_since(work: WorkEvent | NewerWork, reason: DeferReason, time: datetime) -> datetime:
    """Return when the work was deferred first for this reason; ``time`` if it was not."""
    if isinstance(work, Submitted) or work.data.deferred != reason or work.data.deferred_since is None:
        return time
    return min(work.data.deferred_since, time)


def _placed(
    job: Job, why: PlacementReason, source: str, time: datetime, fence: int, traceparent: str | None = None
) -> Placed | None:
    order = job.order
    if order is None:
        return None
    deferred = job.state is JobState.SCHEDULED and job.deferred_since is not None
    return Placed(
        id=placement_id(job),
        source=source,
        subject=job.id,
        time=time,
        correlationid=job.correlation_id,
        traceparent=traceparent or job.traceparent,
        data=PlacedData(
            job_type=job.type,
            run=job.run,
            attempt=job.attempt_due,
            n=job.placed + 1,
            why=why,
            lost_execution=job.execution if job.state is JobState.RUNNING else None,
            deferred=cast("DeferReason", job.reason) if deferred else None,
            deferred_since=job.deferred_since if deferred else None,
            fence=None if job.gates is None else fence,
            order=order,
        ),
    )
