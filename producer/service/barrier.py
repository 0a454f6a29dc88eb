"""Read your own write: waiting until the view has folded everything that was on the tape at a moment.

Theory of operation. A job that was accepted a moment ago is on the tape, though not yet in the view, and a miss in the
view says nothing. So whoever misses asks for a **barrier**: a message on the tape that the projector notes when it
folds past it. What was confirmed before the barrier's publish *began* stands before it on the tape, and is in the view
once it has passed.

Hence the one rule: a caller may only wait for a barrier whose publish begins after the caller's own miss. Joining one
whose publish had begun gave false 404s, since the job may have come to the tape behind it. Per process there is one
barrier in flight and one that waits to begin, which all newcomers join; at most 20 begin in a second; one poller
watches each. So a flood of misses costs the tape 20 small messages a second, and the database one poller.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from jobtape.producer.service.errors import TooBusy, ViewBehind
from jobtape.schemas import ids
from jobtape.schemas.errors import JobtapeError

MIN_INTERVAL: Final = 0.05
"""Seconds from the beginning of one barrier to that of the next."""
MAX_WAITING: Final = 1000
FIRST_POLL, LONGEST_POLL = 0.002, 0.05
CLOCK_MARGIN: Final = timedelta(minutes=5)
"""How far the clocks of the processes that give out ids may differ."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """When a barrier's publish began, by both clocks."""

    wall: datetime
    monotonic: float


class Barriers:
    """The barriers of one process.

    ``publish(seq, timeout)`` writes one to the tape; ``passed()`` is the highest number that the fold has passed.
    ``timeout``: seconds that one caller waits.
    """

    def __init__(
        self,
        publish: Callable[[int, float], Awaitable[None]],
        passed: Callable[[], Awaitable[int]],
        *,
        timeout: float,
    ) -> None:
        self._publish = publish
        self._passed = passed
        self._timeout = timeout
        self._seq = 0
        self._next: asyncio.Future[JobtapeError | None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._waiting = 0
        self._begun: float | None = None
        self._last_passed: _Moment | None = None

    def settled(self, job_id: str) -> bool:
        """Whether the view knows by now whatever there is to know of an id so old.

        Ask before reading, not after: a barrier that passes in between says nothing of what was read. An id that shows
        no time counts as old: ours all do.
        """
        if self._last_passed is None:
            return False
        made = ids.time_of(job_id)
        if made is None:
            return True
        # Where our own clock was set back meanwhile, new ids look old; so the moment is also reckoned from now.
        passed = self._last_passed
        reckoned = datetime.now(UTC) - timedelta(seconds=time.monotonic() - passed.monotonic)
        return made < min(passed.wall, reckoned) - CLOCK_MARGIN

    async def wait(self) -> None:
        """Returns once the view has folded everything that was on the tape when this was called.

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
        if (trouble := joined.result()) is not None:
            raise trouble

    async def close(self) -> None:
        """Stop; whoever still waits gets ViewBehind."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait({self._runner})

    async def _run(self) -> None:
        """One barrier after the other, as long as somebody waits for the next."""
        while self._next is not None:
            if self._begun is not None:
                await asyncio.sleep(self._begun + MIN_INTERVAL - time.monotonic())
            # From here on newcomers join the one after this.
            current, self._next = self._next, None
            # Only what has passed may say so, however this ends: anything else would be a false 404.
            trouble: JobtapeError | None = self._behind()
            try:
                await self._pass_one()
                trouble = None
            except JobtapeError as error:
                trouble = error
            finally:
                current.set_result(trouble)

    async def _pass_one(self) -> None:
        self._seq += 1
        seq = self._seq
        begun = _Moment(datetime.now(UTC), time.monotonic())
        self._begun = begun.monotonic
        deadline = begun.monotonic + self._timeout
        try:
            await self._publish(seq, self._timeout)
        except JobtapeError as error:
            raise ViewBehind(
                f"it is not known now whether there is such a job, since the tape does not take a barrier: {error}"
            ) from None
        pause = FIRST_POLL
        while await self._passed() < seq:
            if time.monotonic() + pause > deadline:
                # Its waiters came before it began, so none of them still has time left.
                raise self._behind()
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL)
        self._last_passed = begun

    def _behind(self) -> ViewBehind:
        return ViewBehind(
            f"the view did not catch up with the tape within {self._timeout:g} s: whether there is such a job is not "
            "known yet. Try again; if it stays so, look at /health/ready: a projector must be running"
        )
