"""A second implementation of the rules of ``fold``: it decides from the events before an event whether it is accepted,
and keeps no state. It is slow, but simple enough to be checked by reading.
"""

from collections.abc import Sequence
from typing import Any

from jobtape.schemas.events import (
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

Tape = Sequence[JobEvent]
STATES = {
    "started": "running",
    "progressed": "running",
    "retrying": "retrying",
    "continued": "held",
    "deferred": "scheduled",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}


def counted(tape: Tape) -> list[int]:
    """The indexes of the accepted events."""
    found: list[int] = []
    for i, event in enumerate(tape):
        if _counts(tape[:i], [tape[n] for n in found], event):
            found.append(i)
    return found


def _counts(before: Tape, accepted: Tape, event: JobEvent) -> bool:
    if isinstance(event, Submitted):
        return not any(isinstance(other, Submitted) for other in before)
    number = event.data.run
    if any(other.data.run > number for other in before):
        return False
    run = _of_run(before, number)
    if isinstance(event, Redriven | Released):  # no job here has gates, so none holds an ordering key
        return not run
    if any(isinstance(other, Continued) for other in _of_run(accepted, number)):
        return _counts_among_follow_ups(_of_run(accepted, number), event)
    if any(_closes_run(run[:i], other) for i, other in enumerate(run)):
        return False
    if isinstance(event, Signalled):
        return _is_first_signal(_of_run(accepted, number), event)
    if isinstance(event, Placed | Deferred):
        if _attempt_closed(run, event.data.attempt):
            return False
        placed = _placed(before, run, number, event.data.attempt)
        deferred = [(e.data.attempt, e.data.n) for e in _of_run(accepted, number) if isinstance(e, Deferred)]
        first = isinstance(event, Deferred) and (event.data.attempt, event.data.n) not in deferred
        return event.data.n > placed or (first and event.data.n == placed)
    if isinstance(event, Succeeded | Cancelled):
        return True
    if _attempt_closed(run, event.data.attempt):
        return False
    if isinstance(event, Retrying | Failed | Continued):
        return True
    assert isinstance(event, Started | Progressed)
    return _is_news(_of_run(accepted, number), event)


def _counts_among_follow_ups(accepted: Tape, event: JobEvent) -> bool:
    """``accepted``: of a run whose handler has named follow-ups. Only the projector ends it, or a cancellation."""
    if any(isinstance(other, Succeeded | Failed | Cancelled) for other in accepted):
        return False
    if isinstance(event, Signalled):
        return _is_first_signal(accepted, event)
    return isinstance(event, Cancelled) or (isinstance(event, Succeeded | Failed) and event.data.execution == "flow")


def _is_first_signal(accepted: Tape, event: Signalled) -> bool:
    return all(other.data.signal != event.data.signal for other in accepted if isinstance(other, Signalled))


def _of_run(tape: Tape, number: int) -> Tape:
    return [other for other in tape if other.data.run == number and not isinstance(other, Submitted)]


def _placed(before: Tape, run: Tape, number: int, attempt: int) -> int:
    """How often the attempt's work was placed; the submission is the first placement of the first run. All submissions
    here are for now.
    """
    if any(isinstance(other, Retrying) and other.data.attempt == attempt for other in run):
        return 0  # what counts now are the placements of the next attempt
    ordered = number == attempt == 1 and any(isinstance(other, Submitted) for other in before)
    numbers = (other.data.n for other in run if isinstance(other, Placed | Deferred) and other.data.attempt == attempt)
    return max([int(ordered), *numbers])


def _moving(run: Tape) -> list[JobEvent]:
    """The accepted events of a run that change the state. ``placed`` does not if another execution is the latest of the
    attempt.
    """
    said: list[JobEvent] = []
    for event in run:
        last = said[-1] if said else None
        working = isinstance(last, Started | Progressed) and last.data.attempt == event.data.attempt
        if isinstance(event, Placed) and working and last.data.execution != event.data.lost_execution:  # type: ignore[union-attr]
            continue
        if not isinstance(event, Signalled):
            said.append(event)
    return said


def _closes_run(before: Tape, event: JobEvent) -> bool:
    """A failure of an earlier attempt does not close the run."""
    if isinstance(event, Failed):
        return not _attempt_closed(before, event.data.attempt)
    return isinstance(event, Succeeded | Cancelled) or (isinstance(event, Released) and not before)


def _attempt_closed(run: Tape, attempt: int) -> bool:
    own_retry = any(isinstance(other, Retrying) and other.data.attempt == attempt for other in run)
    return own_retry or any(
        other.data.attempt > attempt for other in run if not isinstance(other, Redriven | Cancelled | Signalled)
    )


def _is_news(run: Tape, event: Started | Progressed) -> bool:
    said = [
        other.data
        for other in run
        if isinstance(other, Started | Progressed) and other.data.attempt == event.data.attempt
    ]
    executions = list(dict.fromkeys(data.execution for data in said))
    if event.data.execution not in executions:
        return True
    if event.data.execution != executions[-1] or isinstance(event, Started) or _deferred_since_last_report(run, event):
        return False
    return event.data.n > max((getattr(d, "n", 0) for d in said if d.execution == event.data.execution), default=0)


def _deferred_since_last_report(run: Tape, event: Started | Progressed) -> bool:
    reports = [i for i, e in enumerate(run) if getattr(e.data, "execution", None) == event.data.execution]
    return any(isinstance(e, Deferred) and e.data.attempt == event.data.attempt for e in run[reports[-1] :])


def status(tape: Tape) -> dict[str, Any]:
    """The expected fields of a job's status after ``tape``."""
    counting = [tape[i] for i in counted(tape)]
    orders = [event for event in counting if isinstance(event, Submitted)]
    lived = [event for event in counting if not isinstance(event, Submitted)]
    run = max((event.data.run for event in lived), default=1)
    present = [event for event in lived if event.data.run == run]
    said = _moving(present)
    last = said[-1] if said else orders[0]
    attempt = max((e.data.attempt for e in present if not isinstance(e, Redriven | Cancelled | Signalled)), default=1)
    follow_ups = next((event.data.follow_ups for event in present if isinstance(event, Continued)), None)
    retries = [event for event in present if isinstance(event, Retrying)]
    end = last if isinstance(last, Succeeded | Failed | Cancelled) else None
    error = (
        end
        if isinstance(end, Failed)
        else None
        if isinstance(end, Succeeded) or follow_ups
        else retries[-1]
        if retries
        else None
    )
    return {
        "state": STATES.get(last.name, "queued"),
        "run": run,
        "placed": _placed(tape, present, run, attempt),
        "rescues": sum(isinstance(event, Placed) and event.data.why != "due" for event in present),
        "attempt": attempt,
        "submitted_at": orders[0].time if orders else None,
        "payload": orders[0].data.order.payload if orders else None,
        "result": end.data.result if isinstance(end, Succeeded) else None,
        "error": error.data.error if error else None,
        "reason": _reason(said),
        "duplicate_of": end.data.duplicate_of if isinstance(end, Cancelled) else None,
        "follow_ups": follow_ups,
        "signals": {e.data.signal: _signal(e) for e in present if isinstance(e, Signalled)} or None,
        "finished_at": end.time if end else None,
        "traceparent": orders[0].context if orders else None,
        "cursor": counted(tape)[-1],
        **_work(present),
    }


def _signal(event: Signalled) -> dict[str, Any]:
    return {"payload": event.data.payload, "timed_out": event.data.timed_out, "event": event.id}


def _reason(said: Tape) -> str | None:
    """The reason of the last failure or deferral. That of a deferral ends with it."""
    reason: str | None = None
    before: JobEvent | None = None
    for event in said:
        if isinstance(event, Retrying | Failed | Deferred | Cancelled):
            reason = event.data.reason or (None if reason == "follow_ups" else reason)
        elif isinstance(event, Continued):
            reason = "follow_ups"
        elif isinstance(event, Succeeded) or (
            isinstance(before, Deferred) and isinstance(event, Placed | Started | Progressed)
        ):
            reason = None
        before = event
    return reason


def _work(present: Tape) -> dict[str, Any]:
    """The expected fields of the newest execution."""
    for event in present:
        if isinstance(event, Continued):
            return {"execution": event.data.execution, "progress_n": 0}
    said = [event for event in present if isinstance(event, Started | Progressed)]
    deferred = [i for i, event in enumerate(present) if isinstance(event, Deferred)]
    if not said or (deferred and deferred[-1] > present.index(said[-1])):
        return {"execution": None, "progress_n": 0}
    newest = [event for event in said if event.data.execution == said[-1].data.execution]
    return {"execution": said[-1].data.execution, "progress_n": getattr(newest[-1].data, "n", 0)}
