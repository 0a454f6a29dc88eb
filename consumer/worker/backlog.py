"""The deliveries that wait in the worker for a place, and which of them is next.

The one that came first, unless as many of its job type run as may run at once: then it lets the others pass.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobtape.broker.intake import Delivery
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.work import WorkEvent


@dataclass(frozen=True, slots=True)
class WaitingDelivery:
    """A delivery and what it says; ``until``: when it has waited too long (monotonic seconds)."""

    delivery: Delivery
    event: WorkEvent
    until: float


@dataclass(slots=True)
class Backlog:
    """``free``: places for handlers, of whatever type."""

    job_types: Mapping[str, JobTypeSpec]
    free: int
    _waiting: list[WaitingDelivery] = field(default_factory=list)
    _running: Counter[str] = field(default_factory=Counter)

    def add(self, delivery: Delivery, event: WorkEvent, longest_wait: float) -> None:
        """It has just come, and may wait so many seconds."""
        self._waiting.append(WaitingDelivery(delivery, event, time.monotonic() + longest_wait))

    def next(self) -> WaitingDelivery | None:
        """Take out the one that begins now; None when there is no place or nobody who may have it."""
        if self.free:
            for i, each in enumerate(self._waiting):
                if self._has_room(each.event.data.order.type):
                    return self._waiting.pop(i)
        return None

    def take_slot(self, job_type: str) -> None:
        """One of this type begins."""
        self.free -= 1
        self._running[job_type] += 1

    def release_slot(self, job_type: str) -> None:
        """No handler of it runs any more."""
        self.free += 1
        self._running[job_type] -= 1
        if not self._running[job_type]:
            del self._running[job_type]

    def overdue(self) -> list[Delivery]:
        """Take out those that have waited too long."""
        now = time.monotonic()
        late = [each for each in self._waiting if each.until <= now]
        self._waiting = [each for each in self._waiting if each.until > now]
        return [each.delivery for each in late]

    def clear(self) -> list[Delivery]:
        """Take out all."""
        left, self._waiting = self._waiting, []
        return [each.delivery for each in left]

    def _has_room(self, name: str) -> bool:
        job_type = self.job_types.get(name)
        return job_type is None or job_type.concurrency is None or self._running[name] < job_type.concurrency
