"""One execution of one attempt: runs the handler, publishes ``started`` and progress, and makes the outcome's event."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from uuid_utils import uuid4

from jobtape.consumer.outcome import Failure, NamedFollowUps, Outcome, Success, failure, failure_of
from jobtape.consumer.worker.handlers.handlers import Handlers, RunningHandler
from jobtape.schemas import ids
from jobtape.schemas.errors import JobtapeError, ResultInvalid
from jobtape.schemas.events import (
    Continued,
    ContinuedData,
    EncodedEvent,
    Failed,
    FailedData,
    JobEvent,
    Placed,
    Progressed,
    ProgressedData,
    Retrying,
    RetryingData,
    Started,
    StartedData,
    Submitted,
    WorkEvent,
    encoded,
    encoded_success,
)
from jobtape.schemas.execution.context import Context
from jobtape.schemas.execution.retry import RetryPolicy, next_delay
from jobtape.schemas.job import Order, Progress
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.telemetry import instruments, tracing
from jobtape.telemetry.work import ExecutionSpan, Work

log = logging.getLogger("jobtape.job")

Event = TypeVar("Event", Started, Continued, Progressed, Failed, Retrying)

RecordFollowUps = Callable[[dict[str, Any], Order], dict[str, Any]]
"""Returns what is recorded of the follow-ups of a job with this order. Raises JobtapeError if they do not fit."""
PROGRESS_INTERVAL: Final = 0.2
"""Seconds between two ``progressed`` events."""
PAUSE: Final = 0.5
"""Seconds until a ``started`` event that must be confirmed is published again."""


def knows(job_type: JobTypeSpec | None, order: Order) -> bool:
    """Return whether a worker with this job type can run the order; if not, a newer worker may be able to."""
    return job_type is not None and order.payload_version <= job_type.version


class Execution:
    """One execution of the attempt that ``event`` places.

    ``publish`` returns when an event is confirmed. ``now`` returns the time (UTC). ``suspect``: the job may have killed
    a worker; it runs in a process whatever its type, and its ``started`` event is confirmed first, so that its end can
    be reported in any case. ``record``: None for a worker whose jobs have no follow-ups.
    """

    def __init__(
        self,
        event: WorkEvent,
        *,
        source: str,
        worker: str,
        publish: Callable[[JobEvent], Awaitable[None]],
        now: Callable[[], datetime],
        suspect: bool,
        record: RecordFollowUps | None = None,
    ) -> None:
        self.event = event
        self.order = event.data.order
        self.attempt = event.data.attempt
        self.id = uuid4().hex  # of uuid_utils: Python's own would wait for handlers' threads
        self.handler: RunningHandler | None = None
        """Done when the handler has ended. After a timeout that may be later than its outcome was published."""
        self.settled = False
        """Whether its delivery was settled before its handler has ended."""
        self._suspect = suspect
        self._record = record
        self._source = source
        self._worker = worker
        self._publish = publish
        self._now = now
        self.started_at = now()
        self._began = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._latest: Progress | None = None
        self._woken = False
        self._reported = asyncio.Event()
        self._publishing: asyncio.Task[None] | None = None
        self._span: ExecutionSpan | None = None
        given = event.traceparent  # without it, the context follows from the job's id, and is valid
        self._traceparent = event.context if given is None else tracing.read_traceparent(given)
        """The trace context of the execution."""
        self._error_type: str | None = None

    async def run(self, handlers: Handlers, job_type: JobTypeSpec | None, queue: str = "") -> EncodedEvent:
        """Run the handler and return the event with its outcome. ``queue``: the name on the broker, for traces.

        Cancelling this requests the handler to end and does not wait for it. Raises ExecutionAborted.
        """
        outcome = await self._traced(handlers, job_type, queue)
        wait = (self.started_at - self.event.time).total_seconds()
        # Anybody can publish names of job types, and each would be a time series.
        name = "unknown" if job_type is None else job_type.name
        instruments.note_execution(name, outcome.name, wait, self._duration())
        return outcome

    async def _traced(self, handlers: Handlers, job_type: JobTypeSpec | None, queue: str) -> EncodedEvent:
        span = self._span = self._started_span(queue)
        if span is None:
            return await self._run(handlers, job_type)
        self._traceparent = span.traceparent
        error: str | None = None
        try:
            outcome = await self._run(handlers, job_type)
            error = self._error_type
        except BaseException as fault:
            error = type(fault).__name__
            raise
        finally:
            span.end(error)
        return outcome

    def _started_span(self, queue: str) -> ExecutionSpan | None:
        """Start the span of this execution. Only the first attempt of a job that is not part of another belongs to the
        trace of its submission; others may be many, or much later.
        """
        run, first = self.event.data.run, self.attempt == self.event.data.run == 1
        work = Work(self.event.subject, self.order.type, run, self.attempt, self.event.correlationid, self.event.id)
        linked = not first or self.order.flow is not None
        return tracing.processing(queue, work, self._traceparent, linked=linked)

    async def _run(self, handlers: Handlers, job_type: JobTypeSpec | None) -> EncodedEvent:
        outcome = await self._run_handler(handlers, job_type)
        if isinstance(outcome, NamedFollowUps):
            found = await self._recorded(outcome)
            if isinstance(found, Continued):
                return encoded(found)
            outcome = found
        return self._event_of(outcome, RetryPolicy() if job_type is None else job_type.retry)

    async def _recorded(self, outcome: NamedFollowUps) -> Continued | Failure:
        """Return the event with the follow-ups, or the failure that they do not fit."""
        try:
            if self._record is None:
                raise ResultInvalid("the jobs of this worker cannot have follow-ups: return a result")
            # In a thread: validators of payloads are user code.
            follow_ups = await asyncio.to_thread(self._record, outcome.body, self.order)
        except JobtapeError as error:
            return failure("result_invalid", type(error).__name__, f"what ctx.then names cannot be recorded: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a validator raises is this job's failure
            return failure_of(error, RetryPolicy())
        data = ContinuedData(
            **self._data(),
            worker=self._worker,
            started_at=self.started_at,
            duration=self._duration(),
            follow_ups=follow_ups,
        )
        return self._event(Continued, data)

    def _duration(self) -> float:
        # To the microsecond: a longer fraction may have so many digits that ``plainjson.is_surely_storable`` says no.
        return round(max(0.0, time.monotonic() - self._began), 6)

    async def _run_handler(self, handlers: Handlers, job_type: JobTypeSpec | None) -> Outcome:
        if job_type is None:
            return failure(
                "unknown_type",
                "UnknownJobType",
                f"the worker {self._worker} has no job type {self.order.type!r}: start it with the module that has it "
                "(--jobs / JOBTAPE_JOBS)",
            )
        if not knows(job_type, self.order):
            return failure(
                "unknown_type",
                "UnknownJobType",
                f"the worker {self._worker} knows payloads of {self.order.type} up to version {job_type.version}, and "
                f"this one is of version {self.order.payload_version}: start it with the newer module",
            )
        if self._suspect:
            await self._confirm_started()
        try:
            isolated = self._suspect or job_type.isolate
            self.handler = handlers.start(job_type, self.order, self._context(), isolated=isolated, span=self._span)
            return await handlers.wait_for_outcome(self.handler, on_slow=self._start_publishing)
        except asyncio.CancelledError:
            if self.handler is not None:
                self.handler.cancel()
            raise
        finally:
            if self._publishing is not None:
                self._publishing.cancel()
                await asyncio.gather(self._publishing, return_exceptions=True)

    def _context(self) -> Context:
        return Context(
            job_id=self.event.subject,
            job_type=self.order.type,
            run=self.event.data.run,
            attempt=self.attempt,
            log=logging.LoggerAdapter(log, {"job_id": self.event.subject}),
            report=self._report,
            correlation_id=self.event.correlationid,
            fence=self.event.data.fence if isinstance(self.event, Placed) else None,
            event_id=self.event.id,
            flow=None if self.order.flow is None else self.order.flow.id,
            depth=0 if self.order.flow is None else self.order.flow.depth,
            traceparent=self._traceparent,
        )

    def _report(self, progress: Progress) -> None:
        """Take the handler's progress, from any thread."""
        self._latest = progress
        if not self._woken:  # a handler that reports in a tight loop must not flood the worker's loop
            self._woken = True
            with suppress(RuntimeError):  # the worker's loop has ended while a thread still runs
                self._loop.call_soon_threadsafe(self._reported.set)

    async def _confirm_started(self) -> None:
        while True:
            try:
                return await self._publish(self._started())
            except JobtapeError as error:
                log.warning("the started event of job %s waits: %s", self.event.subject, error)
                await asyncio.sleep(PAUSE)

    def _start_publishing(self) -> None:
        # Not at once: the outcome of a short job contains its start time, which saves a third of all messages.
        self._publishing = self._loop.create_task(self._publish_progress(), name=f"progress of {self.event.subject}")

    async def _publish_progress(self) -> None:
        """Publish ``started``, then the latest progress a few times a second, one event after the other."""
        if not self._suspect:
            await self._confirm_started()
        n = 0
        while True:
            await self._reported.wait()
            self._reported.clear()
            self._woken = False  # first, so that a report from now on wakes this task again
            progress, self._latest = self._latest, None
            if progress is None:
                continue
            n += 1
            data = ProgressedData(**self._data(), n=n, fraction=progress.fraction, message=progress.message)
            await self._try_publish(self._event(Progressed, data, n=n))
            await asyncio.sleep(PROGRESS_INTERVAL)

    async def _try_publish(self, event: JobEvent) -> None:
        try:
            await self._publish(event)
        except JobtapeError as error:  # progress may be lost
            log.warning("the %s event of job %s was not published: %s", event.name, event.subject, error)

    def _started(self) -> Started:
        return self._event(Started, StartedData(**self._data(), worker=self._worker), time=self.started_at)

    def _event_of(self, outcome: Success | Failure, policy: RetryPolicy) -> EncodedEvent:
        duration = self._duration()
        if isinstance(outcome, Success):
            return encoded_success(
                self.event,
                source=self._source,
                worker=self._worker,
                execution=self.id,
                started_at=self.started_at,
                duration=duration,
                result=outcome.result,
                time=self._now(),
                traceparent=self._own_traceparent(),
            )
        self._error_type = outcome.error.type
        delay = next_delay(
            policy,
            attempt=self.attempt,
            max_attempts=self.order.max_attempts,
            retry_after=outcome.retry_after,
            randomness=random.random(),  # noqa: S311 - spreads load, hides nothing
        )
        if delay is None:
            reason = "crash_loop" if self._suspect and outcome.reason == "crashed" else outcome.reason
            failed = FailedData(
                **self._data(),
                worker=self._worker,
                started_at=self.started_at,
                duration=duration,
                error=outcome.error,
                reason=reason,
            )
            return encoded(self._event(Failed, failed))
        now = self._now()
        next_at = now + timedelta(seconds=delay)
        data = RetryingData(**self._data(), error=outcome.error, reason=outcome.reason, next_at=next_at)
        return encoded(self._event(Retrying, data, time=now))

    def _own_traceparent(self) -> str | None:
        """Return the trace context for an event; None for that of the submission. The job has it, so it would only make
        the tape and the view larger.
        """
        repeated = self._span is None and isinstance(self.event, Submitted)
        return None if repeated else self._traceparent

    def _data(self) -> dict[str, Any]:
        return {
            "job_type": self.order.type,
            "run": self.event.data.run,
            "attempt": self.attempt,
            "execution": self.id,
        }

    def _event(self, kind: type[Event], data: Any, *, time: datetime | None = None, n: int | None = None) -> Event:
        job_id, run = self.event.subject, self.event.data.run
        return kind(
            id=ids.attempt_event_id(job_id, run, self.attempt, kind.name, self.id, n),
            source=self._source,
            subject=job_id,
            time=time or self._now(),
            correlationid=self.event.correlationid,
            causationid=self.event.id,
            traceparent=self._own_traceparent(),
            data=data,
        )
