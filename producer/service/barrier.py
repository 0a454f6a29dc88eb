"""Waits until the view contains everything that was on the tape at a moment, so that clients read their own writes.

Theory of operation. A job that was accepted a moment ago is on the tape, but may not be in the view yet. So a miss in
the view proves nothing. A **barrier** does: it is a message on the tape that the projector records when it folds past
it. Everything that was confirmed before the publish of the barrier *began* is on the tape before it, and is in the view
when the barrier has passed.

A request may therefore only wait for a barrier whose publish begins after the request's own miss. It must not use one
whose publish began earlier: the job may be on the tape after that barrier, and the answer would be a false 404. Each
process has at most one barrier in flight, and one that is about to begin, which all new requests join. At most 20 begin
in a second, and one task polls for each. So many misses cost the tape 20 small messages a second, and the database one
poller.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from jobtape.producer.service.errors import TooBusy, ViewBehind
from jobtape.schemas import ids
from jobtape.schemas.errors import JobtapeError, described

log = logging.getLogger(__name__)

MIN_INTERVAL: Final = 0.05
"""Seconds from the beginning of one shared barrier to the beginning of the next."""
MAX_WAITING: Final = 1000
FIRST_POLL, LONGEST_POLL = 0.002, 0.05
CLOCK_MARGIN: Final = timedelta(minutes=5)
"""How far the clocks of the processes that make job ids may differ."""
_UNKNOWN: Final = "it is not known now whether there is such a job, since {}"

PublishBarrier = Callable[[str, int, float], Awaitable[None]]


class Barrier:
    """Writes barriers to the tape, one after the other, and waits until the view has passed them.

    ``publish(process, number, timeout)`` writes one within ``timeout`` seconds. ``passed(process)`` returns the highest
    number that the view has passed. The process is ``name`` and a random suffix, because the barriers of one process
    must reach the tape in the order of their numbers.
    """

    def __init__(
        self,
        name: str,
        publish: PublishBarrier,
        passed: Callable[[str], Awaitable[int]],
    ) -> None:
        self._process = f"{name}-{uuid4().hex}"
        self._publish = publish
        self._passed = passed
        self._number = 0

    async def publish(self, timeout: float) -> None:
        """Write the next barrier within ``timeout`` seconds. Raises TapeMissing and BrokerUnavailable."""
        self._number += 1
        await self._publish(self._process, self._number, timeout)

    async def wait(self, timeout: float = math.inf, *, longest_pause: float = LONGEST_POLL) -> bool:
        """Return True when the view has passed the barrier, False after ``timeout`` seconds.

        ``longest_pause``: the most seconds between two polls. Raises what ``passed`` raises.
        """
        deadline = time.monotonic() + timeout
        pause = FIRST_POLL
        while await self._passed(self._process) < self._number:
            if time.monotonic() + pause > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest_pause)
        return True


@dataclass(frozen=True, slots=True)
class _Moment:
    """When a barrier's publish began, by both clocks."""

    wall: datetime
    monotonic: float


class SharedBarrier:
    """Lets all requests of a process wait with few barriers. ``timeout``: seconds for which one request waits."""

    def __init__(self, barrier: Barrier, *, timeout: float) -> None:
        self._barrier = barrier
        self._timeout = timeout
        self._next: asyncio.Future[JobtapeError | None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._waiting = 0
        self._began: float | None = None
        self._last_passed: _Moment | None = None

    def covers(self, job_id: str) -> bool:
        """Return whether a barrier has passed that began well after ``job_id`` was made: a miss is then final.

        Call it before the read, because a barrier that passes between both says nothing about what was read. An id that
        contains no time counts as old, because all ids of jobs contain one. A job that a handler spawned is never
        covered: its id has the time of the handler's job.
        """
        if self._last_passed is None:
            return False
        if ids.is_spawned(job_id):
            return False
        made = ids.time_of(job_id)
        if made is None:
            return True
        # If the clock was set back in between, new ids look old. So the moment is also calculated back from now.
        passed = self._last_passed
        calculated = datetime.now(UTC) - timedelta(seconds=time.monotonic() - passed.monotonic)
        return made < min(passed.wall, calculated) - CLOCK_MARGIN

    async def wait(self) -> None:
        """Return when the view has everything that was on the tape at the call.

        Raises ViewBehind when that takes too long, TooBusy when too many wait, ViewUnavailable without a database.
        """
        if self._waiting >= MAX_WAITING:
            raise TooBusy(f"{MAX_WAITING} requests are waiting for the view to catch up already: try again in a moment")
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name="barriers")
        joined = self._next
        self._waiting += 1
        try:
            await asyncio.wait({joined}, timeout=self._timeout)
        finally:
            self._waiting -= 1
        if not joined.done():
            raise self._behind()
        if (error := joined.result()) is not None:
            raise error

    async def close(self) -> None:
        """Stop. Requests that still wait get ViewBehind."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait({self._runner})

    async def _run(self) -> None:
        """Run one barrier after the other, as long as a request waits for the next one."""
        try:
            while self._next is not None:
                if self._began is not None:
                    await asyncio.sleep(self._began + MIN_INTERVAL - time.monotonic())
                # From here on new requests join the barrier after this one.
                current, self._next = self._next, None
                # The default is an error, so that a cancellation cannot lead to a false 404.
                result: JobtapeError | None = ViewBehind(_UNKNOWN.format("this process stops"))
                try:
                    await self._run_one()
                    result = None
                except JobtapeError as error:
                    result = error
                except Exception as error:
                    log.exception("a barrier failed")
                    result = ViewBehind(_UNKNOWN.format(f"waiting for the view failed: {described(error)}"))
                finally:
                    current.set_result(result)
        finally:
            if self._next is not None:
                self._next.set_result(ViewBehind(_UNKNOWN.format("this process stops")))
                self._next = None

    async def _run_one(self) -> None:
        began = _Moment(datetime.now(UTC), time.monotonic())
        self._began = began.monotonic
        try:
            await self._barrier.publish(self._timeout)
        except JobtapeError as error:
            raise ViewBehind(_UNKNOWN.format(f"the tape does not take a barrier: {error}")) from None
        # Every request that waits for this barrier came before it began, so its own deadline is earlier than this one.
        if not await self._barrier.wait(began.monotonic + self._timeout - time.monotonic()):
            raise self._behind()
        self._last_passed = began

    def _behind(self) -> ViewBehind:
        return ViewBehind(
            f"the view did not catch up with the tape within {self._timeout:g} s: whether there is such a job is not "
            "known yet. Try again; if it stays so, look at /health/ready: a projector must be running"
        )
