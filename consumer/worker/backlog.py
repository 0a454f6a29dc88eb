"""The deliveries that wait in the worker for a slot, and the choice of the next one.

The oldest delivery is next. It is skipped while as many jobs of its type run as the type's ``concurrency`` allows, or
as the machine has room for if they run in processes.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from jobtape.broker.queue_consumer import Delivery
from jobtape.schemas.events import WorkEvent
from jobtape.schemas.job_types.job_type import JobTypeSpec

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
    _waiting: list[WaitingDelivery] = field(default_factory=list)
    _running: Counter[str] = field(default_factory=Counter)

    def add(self, delivery: Delivery, event: WorkEvent, longest_wait: float) -> None:
        """Add a new delivery, which may wait for ``longest_wait`` seconds."""
        self._waiting.append(WaitingDelivery(delivery, event, time.monotonic() + longest_wait))

    def next(self) -> WaitingDelivery | None:
        """Remove and return the next delivery to run. None when no slot is free or no waiting job type may use one."""
        if self.free:
            for i, each in enumerate(self._waiting):
                if self._may_run(each.event.data.order.type):
                    return self._waiting.pop(i)
        return None

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
        late = [each for each in self._waiting if each.until <= now]
        self._waiting = [each for each in self._waiting if each.until > now]
        return [each.delivery for each in late]

    def remove(self, which: Callable[[WaitingDelivery], bool]) -> list[WaitingDelivery]:
        """Remove and return the deliveries for which ``which`` returns True."""
        removed = [each for each in self._waiting if which(each)]
        self._waiting = [each for each in self._waiting if each not in removed]
        return removed

    def clear(self) -> list[Delivery]:
        """Remove and return all deliveries."""
        waiting, self._waiting = self._waiting, []
        return [each.delivery for each in waiting]

    def _may_run(self, name: str) -> bool:
        job_type = self.job_types.get(name)
        if job_type is None:
            return True
        most = job_type.concurrency or (MOST_PROCESSES if job_type.isolate else None)
        return most is None or self._running[name] < most
