"""Statistics of jobs and events for a range of time, read from sums that the fold keeps.

Many dashboards ask for the same, so requests share answers: numbers of now for a second, and those of a range for a
second or, since long ranges take longer to read, half a minute for each hour of the step, up to a minute.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

from jobtape.producer.service.shared import Shared
from jobtape.producer.service.view_calls import ViewCalls
from jobtape.view.jobs.statistics import FailureCount, JobCount, Range, Sums
from jobtape.view.store import DueJob, Store
from jobtape.view.tallies import MINUTES_KEPT, Ages

T = TypeVar("T")

MOST_POINTS: Final = 500
POINTS: Final = 120
"""How many points a series has at most if the caller does not name a step."""
LONGEST_STEP: Final = 35 * 1440
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440)
"""Minutes, for callers that name no step."""
_AHEAD: Final = 3600.0
"""Seconds that the time of an event may be later than this process's clock."""
_SLACK: Final = 3600.0
"""Seconds by which the projector's clock may be ahead, when it makes hours of minutes."""
_MOST_SHARED: Final = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """A range in steps of ``step`` minutes. Both ends are multiples of it."""

    within: Range
    step: int

    @property
    def points(self) -> int:
        """How many steps there are."""
        return (self.within.until - self.within.since) // self.step


def plan(
    since: datetime,
    until: datetime,
    now: float,
    *,
    step: int | None = None,
    most: int = MOST_POINTS,
    types: Sequence[str] = (),
    queues: Sequence[str] = (),
) -> Plan:
    """Return the range with at most ``most`` steps (at least 2), of ``step`` seconds or more.

    It contains all of ``since`` to ``until``, except what is not kept. Steps are hours where minutes may not be kept.
    """
    last = min(until.timestamp(), now + _AHEAD)
    first = max(min(since.timestamp(), last), Ages(now).oldest * 60)
    coarse = first < now - MINUTES_KEPT + _SLACK
    span = max(0.0, last - first) / 60
    if step is None:
        minutes = next((each for each in _STEPS if span / each <= min(POINTS, most - 1)), _STEPS[-1])
    else:
        minutes = -(-step // 60)
    # Less by one, since the range seldom begins with a step.
    minutes = max(minutes, -int(-span // (most - 1)))
    if coarse:
        minutes = -(-minutes // 60) * 60
    begin = int(first // 60) // minutes * minutes
    end = max(begin + minutes, -int(-last // (60 * minutes)) * minutes)
    return Plan(Range(begin, end, tuple(sorted(types)), tuple(sorted(queues))), minutes)


@dataclass(frozen=True, slots=True)
class Now:
    """What was read at a time, up to the view's ``cursor``. ``oldest``: by queue, the job that is due longest."""

    at: datetime
    cursor: int
    jobs: Sequence[JobCount]
    oldest: Mapping[str, DueJob]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What was read for a plan. ``totals``: by (type, queue). ``series``: by step."""

    plan: Plan
    now: Now
    totals: Mapping[tuple[str, str], Sums]
    series: Mapping[int, Sums]

    @property
    def jobs(self) -> list[JobCount]:
        """The numbers of jobs of the plan's types and queues."""
        types, queues = self.plan.within.types, self.plan.within.queues
        return [
            count
            for count in self.now.jobs
            if (not types or count.type in types) and (not queues or count.queue in queues)
        ]


class StatisticsReader:
    """Reads statistics. Every call raises ViewUnavailable when the database does not answer, and TooBusy."""

    def __init__(self, store: Store, reads: ViewCalls) -> None:
        self._store = store
        self._reads = reads
        self._now = Shared(partial(reads.call, self._read_now), 1.0)
        self._shared: dict[tuple[str, Plan], Shared[Any]] = {}

    async def close(self) -> None:
        """End running reads."""
        for shared in (self._now, *self._shared.values()):
            await shared.close()

    async def read(self, wanted: Plan) -> Statistics:
        """Return the statistics of a range."""
        return Statistics(wanted, await self._now(), *await self._share("sums", wanted, self._sums))

    async def now(self) -> Now:
        """Return the numbers of now, at most a second old."""
        return await self._now()

    async def events(self, wanted: Plan) -> Mapping[int, tuple[int, int]]:
        """Return the numbers of all accepted events and of ``failed``, by step; steps without events are left out."""
        return await self._share("events", wanted, self._events)

    async def first_time(self) -> datetime | None:
        """Return the first minute that is kept; None when nothing is."""
        minute = await self._reads.call(self._store.statistics.first_minute)
        return None if minute is None else time_of(minute)

    async def failures(
        self, wanted: Plan, limit: int, before: tuple[datetime, str] | None, group_ids: Sequence[str] = ()
    ) -> list[FailureCount]:
        """Return groups of failures, at most a second old. See ``view.jobs.statistics.Statistics.failures``."""

        def read(of: Plan) -> list[FailureCount]:
            return self._store.statistics.failures(of.within, limit, before, group_ids)

        return await self._share(f"failures {limit} {before} {group_ids}", wanted, read, 1.0)

    async def _share(self, what: str, wanted: Plan, read: Callable[[Plan], T], most_age: float = 60.0) -> T:
        key = (what, wanted)
        shared: Shared[T] | None = self._shared.pop(key, None)
        if shared is None:
            shared = Shared(partial(self._reads.call, read, wanted), min(most_age, max(1.0, wanted.step / 2)))
        self._shared[key] = shared  # again as the newest
        while len(self._shared) > _MOST_SHARED:
            del self._shared[next(iter(self._shared))]
        return await shared()

    def _events(self, wanted: Plan) -> Mapping[int, tuple[int, int]]:
        return self._store.statistics.events(wanted.within, wanted.step)

    def _sums(self, wanted: Plan) -> tuple[Mapping[tuple[str, str], Sums], Mapping[int, Sums]]:
        statistics = self._store.statistics
        return statistics.totals(wanted.within), statistics.series(wanted.within, wanted.step)

    def _read_now(self) -> Now:
        store = self._store
        checkpoint, jobs, at = store.checkpoint(), store.statistics.jobs(), datetime.fromtimestamp(time.time(), UTC)
        oldest = store.open_jobs.oldest(sorted({count.queue for count in jobs}), at)
        return Now(at, 0 if checkpoint is None else checkpoint.cursor, jobs, oldest)


def time_of(minute: int) -> datetime:
    """Return the time of a minute since 1970."""
    return datetime.fromtimestamp(minute * 60, UTC)
