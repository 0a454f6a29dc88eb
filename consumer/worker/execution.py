"""One execution of one attempt: what it publishes while it runs, and the outcome's event."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from jobtape.consumer.outcome import Failure, Outcome, Success, failure
from jobtape.consumer.worker.handlers import Handlers, RunningHandler
from jobtape.schemas import ids
from jobtape.schemas.context import Context
from jobtape.schemas.delay_ladder import LONGEST
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.events import (
    Failed,
    FailedData,
    JobEvent,
    Progressed,
    ProgressedData,
    Reason,
    Retrying,
    RetryingData,
    Started,
    StartedData,
    Succeeded,
    SucceededData,
    WorkEvent,
    attempt_of,
)
from jobtape.schemas.job import ErrorInfo, Order, Progress
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.retry import RetryPolicy, next_delay

log = logging.getLogger("jobtape.job")

Publish = Callable[[JobEvent], Awaitable[None]]
Clock = Callable[[], datetime]

STARTED_AFTER: Final = 0.05
"""Seconds a handler must be running before ``started`` is published: a shorter job says it in its outcome, which saves
a third of all messages."""
PROGRESS_EVERY: Final = 0.2
PAUSE: Final = 0.5
"""Seconds until a ``started`` that must be confirmed is tried again."""


def knows(job_type: JobTypeSpec | None, order: Order) -> bool:
    """Return whether a worker with this job type can run the order; if not, a newer worker may be able to."""
    return job_type is not None and order.payload_version <= job_type.version


class Execution:
    """One run of a job's handler. ``note`` publishes an event that may be lost; ``now`` returns the time (UTC).

    ``suspect``: the job may have killed a worker. It runs in a separate process whatever its type, and its ``started``
    event is confirmed first, so that its end can be reported in any case. ``longest_delay``: the longest delay before
    the next attempt in seconds; it limits what the handler and the retry policy ask for.
    """

    def __init__(
        self,
        event: WorkEvent,
        *,
        source: str,
        worker: str,
        note: Publish,
        now: Clock,
        longest_delay: float = LONGEST,
        suspect: bool = False,
    ) -> None:
        self.event = event
        self.order = event.data.order
        self.attempt = attempt_of(event)
        self.id = uuid4().hex
        self.suspect = suspect
        self.working: RunningHandler | None = None
        """Done when no handler of this execution runs any more, which may be after the outcome is known."""
        self._source = source
        self._worker = worker
        self._note = note
        self._now = now
        self._longest_delay = longest_delay
        self._started_at = now()
        self._began = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._latest: Progress | None = None
        self._woken = False
        self._reported = asyncio.Event()
        self._notes: asyncio.Task[None] | None = None

    async def run(self, handlers: Handlers, job_type: JobTypeSpec | None) -> Succeeded | Failed | Retrying:
        """Run the handler and return the event with its outcome.

        Cancelling this asks the handler to end (see ``Handlers.start``) and does not wait for it. Then there is no
        outcome.
        """
        outcome = await self._outcome(handlers, job_type)
        policy = RetryPolicy() if job_type is None else job_type.retry
        return self._event_of(outcome, policy)

    async def _outcome(self, handlers: Handlers, job_type: JobTypeSpec | None) -> Outcome:
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
        isolated = self.suspect or job_type.isolate
        if self.suspect:
            await self._confirm_started()
        timer = self._loop.call_later(STARTED_AFTER, self._begin_notes)
        try:
            start = handlers.start_isolated if isolated else handlers.start
            self.working = start(job_type, self.order, self._context())
            return await handlers.outcome(self.working, job_type, self.order.timeout)
        except asyncio.CancelledError:
            if self.working is not None:
                self.working.cancel()
            raise
        finally:
            timer.cancel()
            await self._end_notes()

    def _context(self) -> Context:
        return Context(
            job_id=self.event.subject,
            job_type=self.order.type,
            run=self.event.data.run,
            attempt=self.attempt,
            log=logging.LoggerAdapter(log, {"job_id": self.event.subject}),
            report=self._report,
            correlation_id=self.event.correlationid,
            event_id=self.event.id,
        )

    def _report(self, progress: Progress) -> None:
        """Called by handlers, from any thread."""
        self._latest = progress
        if not self._woken:  # a handler that reports in a tight loop must not flood the worker's loop
            self._woken = True
            with suppress(RuntimeError):  # the worker's loop has ended while a thread still runs
                self._loop.call_soon_threadsafe(self._reported.set)

    def _begin_notes(self) -> None:
        self._notes = self._loop.create_task(self._publish_notes(), name=f"notes of {self.event.subject}")

    async def _end_notes(self) -> None:
        if self._notes is not None:
            self._notes.cancel()
            await asyncio.gather(self._notes, return_exceptions=True)

    def _started(self) -> Started:
        return Started(
            id=self._fact(Started.name),
            time=self._started_at,
            data=StartedData(**self._place(), execution=self.id, worker=self._worker),
            **self._attributes(),
        )

    async def _confirm_started(self) -> None:
        while True:
            try:
                return await self._note(self._started())
            except JobtapeError as error:
                log.warning("started of %s waits: %s", self.event.subject, error)
                await asyncio.sleep(PAUSE)

    async def _publish_notes(self) -> None:
        """Publish ``started``, then the latest progress a few times a second, one event after the other."""
        if not self.suspect:
            await self._try_note(self._started())
        n = 0
        while True:
            await self._reported.wait()
            self._reported.clear()
            self._woken = False  # first: what is reported from here on wakes again
            progress, self._latest = self._latest, None
            if progress is None:
                continue
            n += 1
            await self._try_note(
                Progressed(
                    id=self._fact(Progressed.name, n),
                    time=self._now(),
                    data=ProgressedData(
                        **self._place(), execution=self.id, n=n, fraction=progress.fraction, message=progress.message
                    ),
                    **self._attributes(),
                )
            )
            await asyncio.sleep(PROGRESS_EVERY)

    async def _try_note(self, event: JobEvent) -> None:
        try:
            await self._note(event)
        except JobtapeError as error:
            # A note may be lost, an outcome may not: that one is published until it is confirmed.
            log.warning("%s of %s was not published: %s", event.name, event.subject, error)

    def _event_of(self, outcome: Outcome, policy: RetryPolicy) -> Succeeded | Failed | Retrying:
        duration = max(0.0, time.monotonic() - self._began)
        match outcome:
            case Success(result):
                return Succeeded(
                    id=self._fact(Succeeded.name),
                    time=self._now(),
                    data=SucceededData(
                        job_type=self.order.type,
                        run=self.event.data.run,
                        attempt=self.attempt,
                        execution=self.id,
                        worker=self._worker,
                        result=result,
                        started_at=self._started_at,
                        duration=duration,
                    ),
                    **self._attributes(),
                )
            case Failure(reason, error, wish):
                delay = next_delay(
                    policy,
                    attempt=self.attempt,
                    max_attempts=self.order.max_attempts,
                    wish=wish,
                    chance=random.random(),  # noqa: S311 - spreads load, hides nothing
                )
                if delay is not None:
                    return self._retrying(reason, error, min(delay, self._longest_delay))
                if self.suspect and reason == "crashed":
                    reason = "crash_loop"
                return Failed(
                    id=self._fact(Failed.name),
                    time=self._now(),
                    data=FailedData(
                        job_type=self.order.type,
                        run=self.event.data.run,
                        attempt=self.attempt,
                        error=error,
                        reason=reason,
                        execution=self.id,
                        worker=self._worker,
                        started_at=self._started_at,
                        duration=duration,
                    ),
                    **self._attributes(),
                )

    def _retrying(self, reason: Reason, error: ErrorInfo, delay: float) -> Retrying:
        now = self._now()
        return Retrying(
            id=self._fact(Retrying.name),
            time=now,
            data=RetryingData(
                job_type=self.order.type,
                run=self.event.data.run,
                attempt=self.attempt,
                execution=self.id,
                error=error,
                reason=reason,
                next_at=now + timedelta(seconds=delay),
                order=self.order,
            ),
            **self._attributes(),
        )

    def _place(self) -> dict[str, Any]:
        return {"job_type": self.order.type, "run": self.event.data.run, "attempt": self.attempt}

    def _fact(self, name: str, n: int | None = None) -> str:
        return ids.execution_fact(self.event.subject, self.event.data.run, self.attempt, name, self.id, n)

    def _attributes(self) -> dict[str, str | None]:
        return {
            "source": self._source,
            "subject": self.event.subject,
            "correlationid": self.event.correlationid,
            "causationid": self.event.id,
            "traceparent": self.event.traceparent,
        }
