"""Effects: events to publish because of an accepted event, or because a job's work was lost.

Theory of operation. The fold's transaction writes an effect into the outbox together with the status. The active
projector publishes it (``EffectSender``), and the fold deletes it when it reads its id from the tape. So no effect is
lost, and a rejected event has none. Folding the same tape again gives the same result, since the event of a published
effect is further on and deletes it again. For that, an effect has the same id however often it is computed.

All functions are pure and total. ``time`` is when the effect was computed; the publisher replaces it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from jobtape.schemas import ids
from jobtape.schemas.events import Dropped, Failed, FailedData, JobEvent, Requeued, RequeuedData
from jobtape.schemas.job import ErrorInfo, Job, JobState, Order
from jobtape.schemas.topology import run_key

MAX_RESCUES: Final = 3
"""How often lost work of one run is placed again before the run fails."""

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
"""Seconds until work that the broker dropped is placed again. The wait doubles with each placement."""

Why = Literal["lost", "given_up"]
_REASONS: Final[dict[Why, Literal["lost", "crash_loop"]]] = {"lost": "lost", "given_up": "crash_loop"}


@dataclass(frozen=True, slots=True)
class Effect:
    """An event to publish after ``wait`` seconds, with the routing keys ``keys`` in its ``CC`` header."""

    event: Requeued | Failed
    keys: tuple[str, ...] = ()
    wait: float = 0.0


def effects_of(before: Job | None, event: JobEvent, after: Job) -> tuple[Effect, ...]:
    """The effects of ``event``, which changed the job from ``before`` to ``after``; none if it was rejected or
    imported.

    The only effect is to place the work of a redriven run, once the order is known.
    """
    if after is before or after.imported or after.run == 1 or after.placed or after.state is not JobState.QUEUED:
        return ()
    order = order_of(after)
    if order is None:
        return ()
    return (_placement(after, order, "redriven", after.attempt, event.source, event.time, event),)


def may_be_effect(event: JobEvent) -> bool:
    """Whether an event may have been published as an effect."""
    return isinstance(event, Requeued) or (isinstance(event, Failed) and event.data.execution is None)


def rescue(job: Job, why: Why, *, source: str, time: datetime, dropped: int = 0) -> Effect | None:
    """Place the lost work of an open job again, or fail its run after ``MAX_RESCUES``. None when the order is not
    known.

    ``dropped``: how many placements of the run came from ``rescue_dropped``; they do not count.
    """
    order = order_of(job)
    if order is None:
        return None
    if job.placed - dropped > MAX_RESCUES:
        what = "its work has disappeared" if why == "lost" else "the broker has given up delivering it"
        message = f"{what} {job.placed} times. See docs/how-to/redrive.md, then redrive it"
        return failure(job, _REASONS[why], message, source=source, time=time)
    return _placement(job, order, why, attempt_due(job), source, time)


def rescue_dropped(job: Job, reason: Dropped, *, source: str, time: datetime) -> Effect | None:
    """Place work again that the broker dropped from its queue because of a policy. There is no limit, since nothing is
    wrong with the job, but the wait grows each time. None when the order is not known.
    """
    order = order_of(job)
    if order is None:
        return None
    effect = _placement(job, order, "given_up", attempt_due(job), source, time, dropped=reason)
    pause = FIRST_WAIT * 2.0 ** min(max(0, job.placed - 1), 10)
    return replace(effect, wait=max(effect.wait, min(pause, LONGEST_WAIT)))


def failure(job: Job, reason: Literal["lost", "crash_loop"], message: str, *, source: str, time: datetime) -> Effect:
    """Fail the current run of an open job that no worker will finish."""
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
    """The attempt that an open job is in or waits for."""
    return job.attempt + 1 if job.state is JobState.RETRYING else job.attempt


def order_of(job: Job) -> Order | None:
    """The job's order without its delay; None until ``submitted`` has been read."""
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
    # A policy that expires messages may drop delayed work before it is due.
    wait = 0.0 if job.run_at is None else max(0.0, (job.run_at - time).total_seconds())
    return Effect(event, (run_key(order.queue),), wait)
