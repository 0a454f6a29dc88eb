"""A request that waits until something has become of its job: a sleeper in the tail, no thread and no connection.

Theory of operation. No wake-up may be lost between looking at the job and going to sleep. So a request is among the
sleepers first, then looks, and sleeps only if that was not enough: what was committed before the look is seen by it,
and what comes after wakes the request. What wakes it is only a reason to look again: the answer is always the view's.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from starlette.types import Receive

from jobtape.producer.live.event_stream import gone
from jobtape.producer.live.listeners import Listeners
from jobtape.producer.live.prefer import applied
from jobtape.producer.service.errors import TooBusy
from jobtape.producer.service.service import JobService
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.events import Submitted
from jobtape.schemas.job import ENDINGS, FINAL, Job
from jobtape.schemas.selection import Selection

PAUSE: Final = 1.0
"""Seconds until a database that does not answer is asked again."""


AWAITED: Final = ENDINGS | {Submitted.name}
"""An outcome may overtake the submission, and counts once both are there."""

Waited = tuple[Job, dict[str, str]]
"""The job as it is now, and what is to be said of the preference: nothing when too many listen already."""


def has_ended(job: Job) -> bool:
    """Enough for who waits for an outcome."""
    return job.state in FINAL


async def outcome(service: JobService, listeners: Listeners, job: Job, seconds: int, receive: Receive) -> Waited:
    """Wait until the job has ended, ``seconds`` at most. ``receive`` returns when the client has left."""
    return await _wait(service, listeners, job, seconds, receive, has_ended, AWAITED)


async def change(
    service: JobService, listeners: Listeners, job: Job, seconds: int, receive: Receive, changed: Callable[[Job], bool]
) -> Waited:
    """The same until ``changed``."""
    return await _wait(service, listeners, job, seconds, receive, changed, frozenset())


async def _wait(
    service: JobService,
    listeners: Listeners,
    job: Job,
    seconds: int,
    receive: Receive,
    enough: Callable[[Job], bool],
    events: frozenset[str],
) -> Waited:
    if enough(job):
        return job, applied(seconds)
    try:
        wait = _Wait(service, listeners, job.id, seconds, receive)
        return await wait.until(enough, events) or job, applied(seconds)
    except TooBusy:
        return job, {}


class _Wait:
    """One request's; ``seconds`` count from now. ``receive`` returns when its client has left."""

    def __init__(
        self, service: JobService, listeners: Listeners, job_id: str, seconds: float, receive: Receive
    ) -> None:
        self._service = service
        self._listeners = listeners
        self._job_id = job_id
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._receive = receive

    async def until(self, enough: Callable[[Job], bool], events: frozenset[str] = frozenset()) -> Job | None:
        """The job as soon as it is ``enough``, or as it is when the time is over, the client has left, or the process
        stops; None when the view did not answer. ``events``: those that may make it enough, all when empty.

        Raises TooBusy, without waiting, when too many listen already.
        """
        selection = Selection(job=self._job_id, events=events)
        with self._listeners.place("wait"):
            leaving = asyncio.create_task(gone(self._receive), name="a client that waits")
            try:
                return await self._until(enough, selection, leaving)
            finally:
                leaving.cancel()

    async def _until(
        self, enough: Callable[[Job], bool], selection: Selection, leaving: "asyncio.Task[None]"
    ) -> Job | None:
        tail = self._listeners.tail
        job: Job | None = None
        if not await tail.begun(self._left):
            return None
        while True:
            with tail.sleeping(selection) as woken:
                patience = self._left
                try:
                    job = await self._service.look(self._job_id)
                except (ViewUnavailable, TooBusy):
                    patience = min(PAUSE, patience)
                if (job is not None and enough(job)) or self._left <= 0 or leaving.done() or tail.ended:
                    return job
                either: set[asyncio.Future[Any]] = {woken, leaving}
                await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)

    @property
    def _left(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()
