"""What follows from an accepted event, and what is done for a job whose work has got lost: events to be published.

Theory of operation. The fold's transaction writes an effect into the outbox beside the status; the active projector
publishes it (``EffectSender``); the fold deletes it when it sees its id on the tape. So an effect is never lost, and a
rejected event has none. Folding the same tape again gives the same result, since an effect that was published is
deleted by its own event further on. Hence its id says which fact it is, and is the same however often it is found.

All functions are pure and total; ``time`` is when the effect was found, and is replaced by that of the publish.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from jobtape.schemas import ids
from jobtape.schemas.events import Dropped, Failed, FailedData, JobEvent, Requeued, RequeuedData
from jobtape.schemas.job import ErrorInfo, Job, JobState, Order
from jobtape.schemas.topology import run_key

PUT_BACK_AT_MOST: Final = 3
"""How often the work of one run is placed again before the run fails: what gets lost that often will get lost again."""

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
"""Seconds until work that the broker dropped is placed again; they double with each placement."""

Why = Literal["lost", "given_up"]
_REASONS: Final[dict[Why, Literal["lost", "crash_loop"]]] = {"lost": "lost", "given_up": "crash_loop"}


@dataclass(frozen=True, slots=True)
class Effect:
    """An event to be published after ``wait`` seconds, and the further keys (``CC``) that it is published with."""

    event: Requeued | Failed
    keys: tuple[str, ...] = ()
    wait: float = 0.0


def effects_of(before: Job | None, event: JobEvent, after: Job) -> tuple[Effect, ...]:
    """What follows from ``event``, which made ``after`` of ``before``; nothing when it did not count, or is history.

    A run that was opened by ``redriven`` has its work placed, once the order is known.
    """
    if after is before or after.imported or after.run == 1 or after.placed or after.state is not JobState.QUEUED:
        return ()
    order = order_of(after)
    if order is None:
        return ()
    return (_placement(after, order, "redriven", after.attempt, event.source, event.time, event),)


def may_be_effect(event: JobEvent) -> bool:
    """Whether an event may be one that was published as an effect."""
    return isinstance(event, Requeued) or (isinstance(event, Failed) and event.data.execution is None)


def put_back(job: Job, why: Why, *, source: str, time: datetime, dropped: int = 0) -> Effect | None:
    """Place the work of an open job once more, or end its run when that was done often enough already.

    ``dropped``: how many of the run's placements followed from ``put_back_dropped``, which do not count here. None when
    it cannot be placed, because what was ordered is not known.
    """
    order = order_of(job)
    if order is None:
        return None
    if job.placed - dropped > PUT_BACK_AT_MOST:
        what = "its work has disappeared" if why == "lost" else "the broker has given up delivering it"
        message = f"{what} {job.placed} times; nobody has finished it. See docs/how-to/redrive.md, then redrive it"
        return failure(job, _REASONS[why], message, source=source, time=time)
    return _placement(job, order, why, attempt_due(job), source, time)


def put_back_dropped(job: Job, reason: Dropped, *, source: str, time: datetime) -> Effect | None:
    """Place work that the broker dropped while it waited, as a policy asks for: however often, for nothing is wrong
    with the job, and a little later each time. None when what was ordered is not known.
    """
    order = order_of(job)
    if order is None:
        return None
    effect = _placement(job, order, "given_up", attempt_due(job), source, time, dropped=reason)
    pause = FIRST_WAIT * 2.0 ** min(max(0, job.placed - 1), 10)
    return replace(effect, wait=max(effect.wait, min(pause, LONGEST_WAIT)))


def failure(job: Job, reason: Literal["lost", "crash_loop"], message: str, *, source: str, time: datetime) -> Effect:
    """End the present run of an open job that no worker will end."""
    attempt = attempt_due(job)
    return Effect(
        Failed(
            id=ids.execution_fact(job.id, job.run, attempt, Failed.name, reason),
            source=source,
            subject=job.id,
            time=time,
            correlationid=job.correlation_id,
            data=FailedData(
                job_type=job.type,
                run=job.run,
                attempt=attempt,
                reason=reason,
                error=ErrorInfo(type="".join(part.title() for part in reason.split("_")), message=message),
            ),
        )
    )


def attempt_due(job: Job) -> int:
    """The attempt that an open job is at, or waits for."""
    return job.attempt + 1 if job.state is JobState.RETRYING else job.attempt


def order_of(job: Job) -> Order | None:
    """What was ordered, to be done at once; None when that is not known (yet)."""
    if job.submitted_at is None or job.queue is None or job.timeout is None:
        return None
    return Order(
        type=job.type,
        payload=job.payload or {},
        payload_version=job.payload_version or 1,
        queue=job.queue,
        labels=job.labels or {},
        correlation_id=job.correlation_id,
        timeout=job.timeout,
        max_attempts=job.max_attempts or 1,
        reply_to=job.reply_to,
    )


def _placement(
    job: Job,
    order: Order,
    why: Literal["redriven", "lost", "given_up"],
    attempt: int,
    source: str,
    time: datetime,
    cause: JobEvent | None = None,
    dropped: Dropped | None = None,
) -> Effect:
    n = job.placed + 1
    event = Requeued(
        id=ids.run_fact(job.id, job.run, f"{Requeued.name}/{n}"),
        source=source,
        subject=job.id,
        time=time,
        correlationid=job.correlation_id,
        causationid=None if cause is None else cause.id,
        traceparent=None if cause is None else cause.traceparent,
        data=RequeuedData(
            job_type=job.type,
            run=job.run,
            attempt=attempt,
            n=n,
            why=why,
            lost_execution=job.execution if job.state is JobState.RUNNING else None,
            dropped=dropped,
            order=order,
        ),
    )
    # A policy that lets messages expire shortens delays, and then lets the work expire before it is due.
    wait = 0.0 if job.run_at is None else max(0.0, (job.run_at - time).total_seconds())
    return Effect(event, (run_key(order.queue),), wait)
