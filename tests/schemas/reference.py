"""A second implementation of the rules of ``fold``: it decides from the tape before an event whether it is accepted,
and keeps no state. It is slow, but simple enough to be checked by reading.
"""

from collections.abc import Sequence
from typing import Any

from jobtape.schemas.events import (
    Cancelled,
    Failed,
    JobEvent,
    Progressed,
    Redriven,
    Requeued,
    Retrying,
    Started,
    Submitted,
    Succeeded,
)

Tape = Sequence[JobEvent]
STATES = {
    "started": "running",
    "progressed": "running",
    "retrying": "retrying",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}


def counted(tape: Tape) -> list[int]:
    """The indexes of the accepted events."""
    return [i for i, event in enumerate(tape) if _counts(tape[:i], event)]


def _counts(before: Tape, event: JobEvent) -> bool:
    if isinstance(event, Submitted):
        return not any(isinstance(other, Submitted) for other in before)
    if any(other.data.run > event.data.run for other in before):
        return False
    run = [other for other in before if other.data.run == event.data.run and not isinstance(other, Submitted)]
    if isinstance(event, Redriven):
        return not run
    if any(_closes_run(run[:i], other) for i, other in enumerate(run)):
        return False
    if isinstance(event, Requeued):
        return event.data.n > _placed(before, run, event.data.run)
    if isinstance(event, Succeeded | Cancelled):
        return True
    if _attempt_closed(run, event.data.attempt):
        return False
    if isinstance(event, Retrying | Failed):
        return True
    return _is_news(run, event)


def _placed(before: Tape, run: Tape, number: int) -> int:
    """How often the run's work was placed; the submission is the first placement of the first run."""
    ordered = number == 1 and any(isinstance(other, Submitted) for other in before)
    return max([int(ordered), *(other.data.n for other in run if isinstance(other, Requeued))])


def _moves(before: Tape, event: JobEvent) -> bool:
    """Whether an accepted event changes the state. ``requeued`` does not if its attempt has ended, or if another
    execution is the latest of the attempt. ``before``: the accepted events of the run.
    """
    if not isinstance(event, Requeued):
        return True
    if _attempt_closed(before, event.data.attempt):
        return False
    said = [other for i, other in enumerate(before) if _moves(before[:i], other)]
    last = said[-1] if said else None
    working = isinstance(last, Started | Progressed) and last.data.attempt == event.data.attempt
    return not working or last.data.execution == event.data.lost_execution  # type: ignore[union-attr]


def _closes_run(before: Tape, event: JobEvent) -> bool:
    """A failure of an earlier attempt does not close the run."""
    if isinstance(event, Failed):
        return not _attempt_closed(before, event.data.attempt)
    return isinstance(event, Succeeded | Cancelled)


def _attempt_closed(run: Tape, attempt: int) -> bool:
    own_retry = any(isinstance(other, Retrying) and other.data.attempt == attempt for other in run)
    return own_retry or any(
        other.data.attempt > attempt for other in run if not isinstance(other, Redriven | Cancelled)
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
    if event.data.execution != executions[-1] or isinstance(event, Started):
        return False
    return event.data.n > max((getattr(d, "n", 0) for d in said if d.execution == event.data.execution), default=0)


def status(tape: Tape) -> dict[str, Any]:
    """The expected fields of a job's status after ``tape``."""
    counting = [tape[i] for i in counted(tape)]
    orders = [event for event in counting if isinstance(event, Submitted)]
    lived = [event for event in counting if not isinstance(event, Submitted)]
    run = max((event.data.run for event in lived), default=1)
    present = [event for event in lived if event.data.run == run]
    said = [event for i, event in enumerate(present) if _moves(present[:i], event)]
    last = said[-1] if said else orders[0]
    retries = [event for event in present if isinstance(event, Retrying)]
    end = last if isinstance(last, Succeeded | Failed | Cancelled) else None
    error = end if isinstance(end, Failed) else None if isinstance(end, Succeeded) else retries[-1] if retries else None
    return {
        "state": STATES.get(last.name, "queued"),
        "run": run,
        "placed": _placed(tape, present, run),
        "attempt": max((e.data.attempt for e in present if not isinstance(e, Redriven | Cancelled)), default=1),
        "submitted_at": orders[0].time if orders else None,
        "payload": orders[0].data.order.payload if orders else None,
        "result": end.data.result if isinstance(end, Succeeded) else None,
        "error": error.data.error if error else None,
        "reason": error.data.reason if error else None,
        "finished_at": end.time if end else None,
        "cursor": counted(tape)[-1],
        **_work(present),
    }


def _work(present: Tape) -> dict[str, Any]:
    """The expected fields of the newest execution."""
    said = [event for event in present if isinstance(event, Started | Progressed)]
    if not said:
        return {"execution": None, "progress_n": 0}
    newest = [event for event in said if event.data.execution == said[-1].data.execution]
    return {"execution": said[-1].data.execution, "progress_n": getattr(newest[-1].data, "n", 0)}
