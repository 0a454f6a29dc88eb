"""The events of a flow, and those of its jobs that no worker runs. Each has the same id however often it is made."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from jobtape.schemas import ids
from jobtape.schemas.events import (
    FLOW_EXECUTION,
    Continued,
    Failed,
    FailedData,
    Progressed,
    ProgressedData,
    Reason,
    Signalled,
    SignalledData,
    Started,
    StartedData,
    Succeeded,
    SucceededData,
)
from jobtape.schemas.job import ErrorInfo, Job

WORKER: Final = "projector"
_SHOWN: Final = 10
"""Failed nodes that an error names."""


def started(flow: Job, *, source: str, time: datetime) -> Started:
    """Return the event that shows a flow as running."""
    data = StartedData(job_type=flow.type, run=flow.run, attempt=flow.attempt, execution=FLOW_EXECUTION, worker=WORKER)
    return Started(**_envelope(flow, Started.name), source=source, time=time, data=data)


def progressed(flow: Job, ended: int, total: int, *, source: str, time: datetime) -> Progressed:
    """Return the event that ``ended`` of ``total`` jobs have ended."""
    data = ProgressedData(
        job_type=flow.type,
        run=flow.run,
        attempt=flow.attempt,
        execution=FLOW_EXECUTION,
        n=ended,
        fraction=min(1.0, ended / total),
        message=f"{ended} of {total} jobs have ended",
    )
    return Progressed(**_envelope(flow, Progressed.name, ended), source=source, time=time, data=data)


def succeeded(flow: Job, result: Any, *, source: str, time: datetime) -> Succeeded:
    """Return the event that ends a flow without a failure that is not handled."""
    begin = flow.started_at or time
    data = SucceededData(
        job_type=flow.type,
        run=flow.run,
        attempt=flow.attempt,
        execution=FLOW_EXECUTION,
        worker=WORKER,
        result=result,
        started_at=begin,
        duration=max(0.0, (time - begin).total_seconds()),
    )
    return Succeeded(**_envelope(flow, Succeeded.name), source=source, time=time, data=data)


def failed(flow: Job, nodes: Mapping[str, tuple[int, int | None]], *, source: str, time: datetime) -> Failed:
    """Return the event that ends a flow whose ``nodes`` have failed. Their values: how many jobs of the node failed,
    and of how many if it is mapped.
    """
    shown = [
        name if jobs is None else f"{name} ({failures} of {jobs} jobs)"
        for name, (failures, jobs) in list(nodes.items())[:_SHOWN]
    ]
    more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    what = "no node handles these failures" if flow.follow_ups is None else "these follow-ups failed"
    error = ErrorInfo(type="NodeFailed", message=f"{what}: {', '.join(shown)}{more}")
    return failed_like(flow, error, "node_failed", source=source, time=time)


def failed_like(flow: Job, error: ErrorInfo, reason: Reason, *, source: str, time: datetime) -> Failed:
    """Return the event that ends a flow, or a job with follow-ups, with this error and reason."""
    begin = flow.started_at or time
    data = FailedData(
        job_type=flow.type,
        run=flow.run,
        attempt=flow.attempt,
        error=error,
        reason=reason,
        execution=FLOW_EXECUTION,
        worker=WORKER,
        started_at=begin,
        duration=max(0.0, (time - begin).total_seconds()),
    )
    return Failed(**_envelope(flow, Failed.name), source=source, time=time, data=data)


def unresolved(
    flow: Job, job_id: str, job_type: str, message: str, *, run: int = 1, source: str, time: datetime
) -> Failed:
    """Return the event that fails a run of a node's job, for which there is no payload."""
    error = ErrorInfo(type="PayloadInvalid", message=message)
    return Failed(
        id=ids.attempt_event_id(job_id, run, 1, Failed.name, FLOW_EXECUTION),
        source=source,
        subject=job_id,
        time=time,
        correlationid=flow.correlation_id,
        traceparent=flow.traceparent,
        causationid=began(flow),
        data=FailedData(job_type=job_type, run=run, attempt=1, error=error, reason="payload_invalid"),
    )


def deadlocked(job: Job, message: str, *, source: str, time: datetime) -> Failed:
    """Return the event that fails a held job that can never begin."""
    error = ErrorInfo(type="Deadlock", message=message)
    data = FailedData(job_type=job.type, run=job.run, attempt=job.attempt_due, error=error, reason="payload_invalid")
    event_id = ids.attempt_event_id(job.id, job.run, job.attempt_due, Failed.name, FLOW_EXECUTION)
    return Failed(id=event_id, source=source, subject=job.id, time=time, correlationid=job.correlation_id, data=data)


def taken(flow: Job, job_id: str, of: Job, *, source: str, time: datetime) -> Succeeded:
    """Return the event that a node's job has succeeded with the result of the job ``of`` of the flow that was forked.

    Its duration is 0, because nothing ran.
    """
    return Succeeded(
        id=ids.attempt_event_id(job_id, 1, 1, Succeeded.name, FLOW_EXECUTION),
        source=source,
        subject=job_id,
        time=time,
        correlationid=flow.correlation_id,
        traceparent=flow.traceparent,
        causationid=began(flow),
        data=SucceededData(
            job_type=of.type,
            run=1,
            attempt=1,
            execution=FLOW_EXECUTION,
            worker=WORKER,
            result=of.result,
            started_at=time,
            duration=0.0,
        ),
    )


def began(flow: Job) -> str:
    """Return the id of the event with which the current run of a flow, or of the follow-ups of a job, began."""
    if flow.follow_ups is None:
        return ids.attempt_event_id(flow.id, flow.run, 1, Started.name, FLOW_EXECUTION)
    return ids.attempt_event_id(flow.id, flow.run, flow.attempt, Continued.name, flow.execution or "")


def timed_out(flow: Job, signal: str, *, source: str, time: datetime) -> Signalled:
    """Return the event that a signal did not come in time."""
    data = SignalledData(job_type=flow.type, run=flow.run, attempt=flow.attempt, signal=signal, timed_out=True)
    event_id = ids.signal_event_id(flow.id, flow.run, signal, "timeout")
    envelope = {**_envelope(flow, Signalled.name), "id": event_id}
    return Signalled(**envelope, source=source, time=time, data=data)


def signal_taken(flow: Job, signal: str, of: Mapping[str, Any], *, source: str, time: datetime) -> Signalled:
    """Return the event by which a fork gets a signal of the flow that was forked. ``of``: see ``fold.signal_of``."""
    data = SignalledData(
        job_type=flow.type,
        run=flow.run,
        attempt=flow.attempt,
        signal=signal,
        payload=of["payload"],
        timed_out=of["timed_out"],
    )
    envelope = {**_envelope(flow, Signalled.name), "id": ids.signal_event_id(flow.id, flow.run, signal, "fork")}
    return Signalled(**envelope, source=source, time=time, data=data)


def _envelope(flow: Job, name: str, n: int | None = None) -> dict[str, Any]:
    return {
        "id": ids.attempt_event_id(flow.id, flow.run, flow.attempt, name, FLOW_EXECUTION, n),
        "subject": flow.id,
        "correlationid": flow.correlation_id,
        "traceparent": flow.traceparent,
    }
