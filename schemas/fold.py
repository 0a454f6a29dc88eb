"""Folds events into a job's status: a table of transitions, and a function for each event.

Theory of operation. AMQP delivers at least once: a publish without a confirm is repeated, a delivery without an ack is
executed again, a frozen worker continues and publishes late, and the messages of two publishers may reach the tape in
either order. So the order on the tape is decisive, and ``evolve`` decides for each event whether it is accepted:

* A **run** is closed by its first final event. Later events of that run change nothing,
  but ``submitted`` adds the order, and ``released`` frees its ordering key.
* An **attempt** is closed by its first ``retrying``, or by the first event of a later attempt. After that, of its
  outcomes only ``succeeded`` is accepted, because the work was done. That event closes the run.
* The first event of a **later run** opens that run, whichever event it is, because a worker may publish before the
  ``redriven``. It does so even if the current run has not ended on the tape: a job is redriven only after its end was
  read. So the event of that end existed, the tape has lost it (in a crash, or by retention), and it will not come.
* ``placed`` is accepted when its count of placements is higher than the known one. The job is ``queued``, unless
  an execution other than the lost one runs it. ``deferred`` is accepted once for the latest placement, or for a later
  one. The executions before the ``deferred`` do not count as running any more; their outcomes are accepted.
* ``submitted`` contains the order (what to run), and adds it to the job whenever it comes. It changes the state only if
  it is the job's first event. One that is due later, or has gates, places no work.
* A **rule** (``schemas.rules.rules``) has one run, which only ``cancelled`` ends.
* A **flow** is never placed: the active projector publishes its events. Its ``rank`` is the cursor at which its current
  run began, so a job of the flow that ended before that run has a lower cursor.
* A handler may end with ``continued``, which names the **follow-ups** of the run. The job is ``held`` until they have
  ended; then the projector publishes its outcome. Meanwhile no outcome of another execution is accepted.
* Of the **signals** with one name, and the end of the time for it, the first one in a run is accepted.
* A job with **gates** is ``held`` until it is ``placed``. ``released`` is accepted of a failed run that holds its
  ordering key.
* Of the **executions** of an attempt, the newest on the tape is shown. ``started`` and ``progressed`` of an older one
  change nothing, nor do repeated ones (same execution, same or lower count). Outcomes are accepted from any execution.

The history keeps rejected events too, and marks them. For these ``evolve`` returns the same object, so ``accepted`` is
``after is not before``. It is pure and total: it never raises for any events.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from jobtape.schemas.events import (
    FLOW_EXECUTION,
    Cancelled,
    Continued,
    Deferred,
    Failed,
    JobEvent,
    Placed,
    Progressed,
    Redriven,
    Released,
    Retrying,
    Signalled,
    Started,
    Submitted,
    Succeeded,
)
from jobtape.schemas.execution.failure_group import group_of
from jobtape.schemas.job import FINAL, Job, JobState, Order, Progress, replace
from jobtape.schemas.queueing.gates import FLOW_GROUP, RULE_GROUP, Gates

_S = JobState
_NEW: Final = Job(id="", type="", state=_S.QUEUED, run=1, attempt=1)
FOLLOW_UPS: Final = "follow_ups"
"""The reason of a job that waits for its follow-ups."""
MAX_SIGNALS: Final = 100
"""Signals of one run."""
_WAITING: Final = (_S.SCHEDULED, _S.QUEUED, _S.HELD)
_OF_OPEN_RUN: Final[dict[str, tuple[JobState, ...]]] = {
    "started": (_S.RUNNING,),
    "progressed": (_S.RUNNING,),
    "continued": (_S.HELD,),
    "retrying": (_S.RETRYING,),
    "succeeded": (_S.SUCCEEDED,),
    "failed": (_S.FAILED,),
    "cancelled": (_S.CANCELLED,),
}

TRANSITIONS: Final[dict[tuple[JobState | None, str], tuple[JobState, ...]]] = {
    # None: no event of this run was read before
    (None, "submitted"): _WAITING,
    (None, "redriven"): (_S.QUEUED, _S.HELD),
    (None, "placed"): (_S.QUEUED,),
    (None, "released"): (_S.FAILED,),
    (None, "deferred"): (_S.SCHEDULED,),
    (None, "signalled"): (_S.QUEUED,),
    **{(None, name): targets for name, targets in _OF_OPEN_RUN.items()},
    # an open run
    **{(state, name): targets for state in _S if state not in FINAL for name, targets in _OF_OPEN_RUN.items()},
    (_S.SCHEDULED, "placed"): (_S.QUEUED,),
    (_S.HELD, "placed"): (_S.QUEUED,),
    (_S.QUEUED, "placed"): (_S.QUEUED,),
    (_S.RUNNING, "placed"): (_S.QUEUED, _S.RUNNING),
    (_S.RETRYING, "placed"): (_S.QUEUED,),
    **{(state, "deferred"): (_S.SCHEDULED,) for state in _S if state not in FINAL},
    **{(state, "signalled"): (state,) for state in _S if state not in FINAL},
    # a failed job that holds its ordering key
    (_S.FAILED, "released"): (_S.FAILED,),
    # the order is accepted in every state
    **{(state, "submitted"): (state,) for state in _S},
}
"""(state, event) -> the possible next states. An event that is not in the table changes nothing; one that is in it may
still be rejected because of its run, attempt or execution (see above)."""


def evolve(job: Job | None, event: JobEvent, cursor: int = 0) -> Job:
    """Return the job after ``event`` at ``cursor``; the same object if the event is rejected."""
    after = _evolve(job, event, cursor)
    if after is job:
        return after
    imported = event.imported is not None
    if after.imported is not imported:
        after = replace(after, imported=imported)
    if after.gates is None:
        return after
    return replace(after, has_slots=_has_slots(after) and not isinstance(event, Released))


def _evolve(job: Job | None, event: JobEvent, cursor: int) -> Job:
    if isinstance(event, Submitted):
        return _submit(job, event, cursor)
    if job is not None and job.gates is not None and job.gates.rule and not isinstance(event, Cancelled):
        return job
    if job is None or event.data.run > job.run:
        return _CHANGES[type(event)](_fresh_run(job, event), event, cursor)
    if not _is_accepted(job, event):
        return job
    return _CHANGES[type(event)](job, event, cursor)


def fold(events: Iterable[tuple[JobEvent, int]], start: dict[str, Job] | None = None) -> dict[str, Job]:
    """Return all jobs by id, after ``events`` with their cursors, in the order of the tape. ``start``: the jobs
    before.
    """
    jobs = dict(start or {})
    for event, cursor in events:
        jobs[event.subject] = evolve(jobs.get(event.subject), event, cursor)
    return jobs


def places_no_work(order: Order, submitted_at: datetime) -> bool:
    """Return whether the submission places no work, because the job is due later or has gates."""
    return order.gates is not None or (order.run_at is not None and order.run_at > submitted_at)


def _submit(job: Job | None, event: Submitted, cursor: int) -> Job:
    if job is not None and job.submitted_at is not None:
        return job
    order = event.data.order
    later = places_no_work(order, event.time)
    state = job.state if job is not None else _first_state(order, later=later)
    job = job or _NEW
    first = job.run == job.attempt_due == 1
    if order.gates is not None:
        job = _gated(job, order.gates, event, cursor)
        if job.follow_ups is not None:
            job = replace(job, gate_group=FLOW_GROUP)
    return replace(
        job,
        id=event.subject,
        state=state,
        type=order.type,
        payload=order.payload,
        payload_version=order.payload_version,
        queue=order.queue,
        labels=order.labels,
        correlation_id=order.correlation_id,
        reply_to=order.reply_to,
        timeout=order.timeout,
        max_attempts=order.max_attempts,
        submitted_at=event.time,
        placed=max(job.placed, 1) if first and not later else job.placed,
        run_at=job.run_at or order.run_at or event.time,
        flow=None if order.flow is None else order.flow.id,
        node=None if order.flow is None else order.flow.node,
        item=None if order.flow is None else order.flow.item,
        depth=0 if order.flow is None else order.flow.depth,
        traceparent=event.context,
        cursor=cursor,
    )


def _first_state(order: Order, *, later: bool) -> JobState:
    if not later:
        return _S.QUEUED
    return _S.SCHEDULED if order.gates is None else _S.HELD


def _gated(job: Job, gates: Gates, event: Submitted, cursor: int) -> Job:
    """Return the job with its gates. Jobs with an ordering key are placed in the order of their submissions on the
    tape, others in the order in which they are due.
    """
    if gates.rule:
        return replace(job, gates=gates, gate_group=RULE_GROUP, rank=cursor)
    if gates.flow:
        return replace(job, gates=gates, gate_group=FLOW_GROUP, rank=cursor)
    due = event.data.order.run_at or event.time
    rank = int(due.timestamp() * 1e6) if gates.ordering_key is None else cursor
    return replace(job, gates=gates, gate_group=gates.group(event.data.order.type), rank=rank)


def _has_slots(job: Job) -> bool:
    if job.imported or (job.gates is not None and job.gates.flow):  # it has no work here
        return False
    if job.state is _S.FAILED:
        # Without an end, all that is known of the run is that it was released.
        return job.gates is not None and job.gates.hold and job.finished_at is not None
    return (job.state is not _S.HELD or job.follow_ups is not None) and not job.final


def _fresh_run(job: Job | None, event: JobEvent) -> Job:
    """Return the job at the start of the event's run: with its order, and without the status of the last run."""
    if job is None:
        return replace(_NEW, id=event.subject, type=event.data.job_type, run=event.data.run)
    if job.follow_ups is not None:
        group = None if job.gates is None else job.gates.group(job.type)
        job = replace(job, follow_ups=None, gate_group=group)
    if job.signals is not None:
        # The jobs of a flow that have succeeded keep their results, so it keeps the signals that came.
        kept = job.gates is not None and job.gates.flow
        came = {name: each for name, each in job.signals.items() if kept and not each["timed_out"]}
        job = replace(job, signals=came or None)
    return replace(
        job,
        state=_S.QUEUED,
        run=event.data.run,
        attempt=1,
        result=None,
        error=None,
        failure=None,
        reason=None,
        duplicate_of=None,
        progress=None,
        progress_n=0,
        placed=0,
        rescues=0,
        deferred_since=None,
        execution=None,
        superseded=(),
        run_at=event.time,
        started_at=None,
        finished_at=None,
    )


def _is_accepted(job: Job, event: JobEvent) -> bool:
    """Return whether an event other than ``submitted`` is accepted for the job's current run."""
    if event.data.run != job.run or (job.state, event.name) not in TRANSITIONS:
        return False
    if isinstance(event, Cancelled):
        return True  # also for a closed attempt
    if isinstance(event, Signalled):
        known = job.signals or {}
        # The end of the time is accepted in any case, or the job would wait forever.
        return event.data.signal not in known and (event.data.timed_out or len(known) < MAX_SIGNALS)
    if job.follow_ups is not None:
        return isinstance(event, Succeeded | Failed) and event.data.execution == FLOW_EXECUTION
    if isinstance(event, Succeeded):
        return True  # also for a closed attempt
    if isinstance(event, Released):
        return job.has_slots
    if isinstance(event, Placed | Deferred):
        if event.data.attempt != job.attempt_due:
            return event.data.attempt > job.attempt_due
        latest = isinstance(event, Deferred) and event.data.n == job.placed and job.deferred_since is None
        return event.data.n > job.placed or latest
    if _attempt_closed(job, event):
        return False
    if event.data.attempt > job.attempt:
        return True
    if isinstance(event, Started | Progressed):
        if event.data.execution == job.execution:
            return isinstance(event, Progressed) and event.data.n > job.progress_n
        return event.data.execution not in job.superseded
    return True


def _attempt_closed(job: Job, event: JobEvent) -> bool:
    return event.data.attempt < job.attempt or (event.data.attempt == job.attempt and job.state is _S.RETRYING)


def _attempt(job: Job, event: JobEvent) -> tuple[int, int]:
    """Return the latest attempt up to the event, and how often its work has been placed."""
    if event.data.attempt > job.attempt:
        return event.data.attempt, 0
    return job.attempt, job.placed


def _superseded(job: Job, event: Started | Progressed | Deferred) -> tuple[str, ...]:
    """Return the earlier executions of the event's attempt."""
    if event.data.attempt > job.attempt:
        return ()
    known = isinstance(event, Started | Progressed) and event.data.execution == job.execution
    return job.superseded if known or job.execution is None else (*job.superseded, job.execution)


def _start(job: Job, event: Started | Progressed, cursor: int) -> Job:
    attempt, placed = _attempt(job, event)
    report = event.data if isinstance(event, Progressed) else None
    goes_on = report is not None and report.execution == job.execution
    return replace(
        job,
        state=_S.RUNNING,
        attempt=attempt,
        placed=placed,
        reason=None if job.state is _S.SCHEDULED else job.reason,
        deferred_since=job.deferred_since if attempt == job.attempt else None,
        execution=event.data.execution,
        superseded=_superseded(job, event),
        started_at=job.started_at if goes_on else event.time,
        progress=None if report is None else Progress(fraction=report.fraction, message=report.message),
        progress_n=0 if report is None else report.n,
        cursor=cursor,
    )


def _succeed(job: Job, event: Succeeded, cursor: int) -> Job:
    attempt, placed = _attempt(job, event)
    return replace(
        job,
        state=_S.SUCCEEDED,
        attempt=attempt,
        placed=placed,
        result=event.data.result,
        error=None,
        failure=None,
        reason=None,
        started_at=event.data.started_at,
        finished_at=event.time,
        cursor=cursor,
    )


def _fail(job: Job, event: Failed, cursor: int) -> Job:
    attempt, placed = _attempt(job, event)
    return replace(
        job,
        state=_S.FAILED,
        attempt=attempt,
        placed=placed,
        error=event.data.error,
        failure=group_of(event.data.job_type, event.data.reason, event.data.error).id,
        reason=event.data.reason,
        started_at=event.data.started_at or job.started_at,
        finished_at=event.time,
        cursor=cursor,
    )


def _retry(job: Job, event: Retrying, cursor: int) -> Job:
    return replace(
        job,
        state=_S.RETRYING,
        attempt=max(job.attempt, event.data.attempt),
        placed=0,
        deferred_since=None,
        error=event.data.error,
        failure=group_of(event.data.job_type, event.data.reason, event.data.error).id,
        reason=event.data.reason,
        run_at=event.data.next_at,
        cursor=cursor,
    )


def _place(job: Job, event: Placed, cursor: int) -> Job:
    due = event.data.why == "due"
    rescues = job.rescues if due else job.rescues + 1
    counted = replace(job, placed=event.data.n, rescues=rescues, deferred_since=None, cursor=cursor)
    elsewhere = (
        job.state is _S.RUNNING and event.data.attempt == job.attempt and event.data.lost_execution != job.execution
    )
    if elsewhere:
        return counted
    return replace(
        counted,
        state=_S.QUEUED,
        attempt=event.data.attempt,
        # Work that is rescued was due long ago: it waits from now on.
        run_at=job.run_at if due and job.run_at is not None else event.time,
        reason=None if job.state is _S.SCHEDULED else job.reason,
    )


def _continue(job: Job, event: Continued, cursor: int) -> Job:
    attempt = max(job.attempt, event.data.attempt)
    return replace(
        job,
        state=_S.HELD,
        attempt=attempt,
        placed=job.placed if attempt == job.attempt else 0,
        error=None,
        failure=None,
        reason=FOLLOW_UPS,
        deferred_since=None,
        execution=event.data.execution,
        superseded=(),
        progress=None,
        progress_n=0,
        started_at=event.data.started_at,
        gate_group=FLOW_GROUP,
        follow_ups=event.data.follow_ups,
        cursor=cursor,
    )


def _signal(job: Job, event: Signalled, cursor: int) -> Job:
    return replace(job, signals={**(job.signals or {}), event.data.signal: signal_of(event)}, cursor=cursor)


def signal_of(event: Signalled) -> dict[str, Any]:
    """Return what a job keeps of a signal: its ``payload``, whether it is ``timed_out``, and the ``event``'s id."""
    return {"payload": event.data.payload, "timed_out": event.data.timed_out, "event": event.id}


def _defer(job: Job, event: Deferred, cursor: int) -> Job:
    return replace(
        job,
        state=_S.SCHEDULED,
        attempt=max(job.attempt, event.data.attempt),
        placed=event.data.n,
        run_at=event.data.until,
        reason=event.data.reason,
        deferred_since=event.data.since,
        execution=None,
        superseded=_superseded(job, event),
        progress=None,
        progress_n=0,
        cursor=cursor,
    )


def _cancel(job: Job, event: Cancelled, cursor: int) -> Job:
    return replace(
        job,
        state=_S.CANCELLED,
        reason=event.data.reason or (None if job.reason == FOLLOW_UPS else job.reason),
        duplicate_of=event.data.duplicate_of,
        finished_at=event.time,
        cursor=cursor,
    )


def _redrive(job: Job, event: Redriven, cursor: int) -> Job:
    if job.gates is None:
        return replace(job, state=_S.QUEUED, run_at=event.time, cursor=cursor)
    rank = job.rank if job.gates.ordering_key is not None else int(event.time.timestamp() * 1e6)
    if job.gates.flow:
        rank = cursor
    return replace(job, state=_S.HELD, run_at=event.time, rank=rank, cursor=cursor)


def _release(job: Job, event: Released, cursor: int) -> Job:
    return replace(job, state=_S.FAILED, cursor=cursor)


_CHANGES: Final[dict[type[JobEvent], Callable[[Job, Any, int], Job]]] = {
    Started: _start,
    Progressed: _start,
    Succeeded: _succeed,
    Failed: _fail,
    Retrying: _retry,
    Continued: _continue,
    Signalled: _signal,
    Placed: _place,
    Deferred: _defer,
    Cancelled: _cancel,
    Redriven: _redrive,
    Released: _release,
}
"""What an accepted event changes in its job."""
