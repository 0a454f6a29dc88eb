"""The deliveries that wait in the worker for a slot, and the choice of the next one.

The oldest delivery of a lane is next. It is skipped while as many jobs of its type run as the type's ``concurrency``
allows, or as the machine has room for if they run in processes.

While deliveries of several lanes wait, they share the slots that become free by weights, as in deficit round robin: in
each round a lane may begin as many jobs as its weight, the high lane first. A lane that has nothing to run leaves its
part to the others. So no lane starves, and a job of the high lane waits for few others.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from jobtape.broker.queue_consumer import Delivery
from jobtape.schemas.events import WorkEvent
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.queueing.lanes import LANES, WEIGHTS, Lane, lane_of

MOST_PROCESSES: Final = max(4, os.cpu_count() or 1)
"""How many isolated jobs of one type run at the same time, unless the type says otherwise: each has a process."""


@dataclass(frozen=True, slots=True)
class WaitingDelivery:
    """A delivery with its event. ``until`` is the time (monotonic seconds) at which it has waited too long."""

    delivery: Delivery
    event: WorkEvent
    until: float


@dataclass(slots=True)
class Backlog:
    """The waiting deliveries. ``free`` is the number of free slots, for handlers of any type."""

    job_types: Mapping[str, JobTypeSpec]
    free: int
    _waiting: dict[Lane, list[WaitingDelivery]] = field(default_factory=lambda: {lane: [] for lane in LANES})
    _credit: dict[Lane, int] = field(default_factory=lambda: dict(WEIGHTS))
    """How many jobs each lane may begin until the next round."""
    _running: Counter[str] = field(default_factory=Counter)

    def add(self, delivery: Delivery, event: WorkEvent, longest_wait: float) -> None:
        """Add a new delivery, which may wait for ``longest_wait`` seconds."""
        waiting = WaitingDelivery(delivery, event, time.monotonic() + longest_wait)
        self._waiting[lane_of(event.data.order.queue)].append(waiting)

    def next(self) -> WaitingDelivery | None:
        """Remove and return the next delivery to run. None when no slot is free or no waiting job type may use one."""
        if not self.free:
            return None
        first = {lane: i for lane in LANES if self._waiting[lane] and (i := self._first(lane)) is not None}
        if not first:
            return None
        lane = self._choose_lane(first) if len(first) > 1 else next(iter(first))
        return self._waiting[lane].pop(first[lane])

    def _first(self, lane: Lane) -> int | None:
        """Return the index of the first delivery of a lane whose job type may use a slot."""
        for i, each in enumerate(self._waiting[lane]):
            if self._may_run(each.event.data.order.type):
                return i
        return None

    def _choose_lane(self, lanes: Collection[Lane]) -> Lane:
        """Return which of several lanes, in their order, begins a job, and take it off its credit."""
        if not any(self._credit[lane] for lane in lanes):
            self._credit = dict(WEIGHTS)
        lane = next(lane for lane in lanes if self._credit[lane])
        self._credit[lane] -= 1
        return lane

    def take_slot(self, job_type: str) -> None:
        """Take a slot for a handler of ``job_type``."""
        self.free -= 1
        self._running[job_type] += 1

    def release_slot(self, job_type: str) -> None:
        """Release the slot of a handler of ``job_type`` that has ended."""
        self.free += 1
        self._running[job_type] -= 1
        if not self._running[job_type]:
            del self._running[job_type]

    def overdue(self) -> list[Delivery]:
        """Remove and return the deliveries that have waited too long."""
        now = time.monotonic()
        return [each.delivery for each in self.remove(lambda each: each.until <= now)]

    def remove(self, which: Callable[[WaitingDelivery], bool]) -> list[WaitingDelivery]:
        """Remove and return the deliveries for which ``which`` returns True."""
        removed: list[WaitingDelivery] = []
        for lane, waiting in self._waiting.items():
            found = [each for each in waiting if which(each)]
            if found:
                self._waiting[lane] = [each for each in waiting if each not in found]
                removed += found
        return removed

    def job_ids(self) -> list[str]:
        """Return the ids of the jobs of all deliveries, by lane, the oldest first."""
        return [each.event.subject for lane in LANES for each in self._waiting[lane]]

    def clear(self) -> list[Delivery]:
        """Remove and return all deliveries."""
        return [each.delivery for each in self.remove(lambda _: True)]

    def _may_run(self, name: str) -> bool:
        job_type = self.job_types.get(name)
        if job_type is None:
            return True
        most = job_type.concurrency or (MOST_PROCESSES if job_type.isolate else None)
        return most is None or self._running[name] < most
