"""The groups of held jobs: which of them can place a job now, and what the others wait for.

Only the first job of a group can be placed. So the group has one of these states, until it is examined or changes:

- **ready**: as far as is known, its first job can be placed. The group whose last job was placed longest ago is next.
- **timed**: its first job is due later, or its queue takes no work until then. At that time the group is ready.
- **blocked**: a gate of its first job is closed. The group is ready when the gate opens and no other group has waited
  for it longer, when it has another first job, or when a rule has changed.

When a gate opens, one group gets the **opening**. If it does not use it, ``pass_on`` gives it to the next one.
"""

import heapq
import itertools
import math
from bisect import insort
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from jobtape.schemas.queueing.gates import Gate
from jobtape.view.store import HeldJob

KNOWN: Final = 200
"""Jobs of a group that are read at once, and about as many are kept in memory."""
GROUPS_READ: Final = 50
"""Groups whose jobs are read at once."""
NOTHING: Final = (-1, "")
"""The key before the first job of a group."""
EVERYTHING: Final = (2**63, "")
"""The key after the last job of a group."""


@dataclass(slots=True, eq=False)
class Group:
    """The held jobs of one group.

    ``last_turn``: grows each time a job of the group is placed; the lowest is next. ``jobs``: the first ones, sorted,
    without those that were taken. ``known_to``: all held jobs up to this key are in ``jobs`` or were taken. ``missed``:
    while jobs are being read, those that were committed meanwhile. ``ready``: whether it is among the ready groups.
    ``gate``: the one that it waits for. ``opened``: the one because of which it is ready.
    """

    name: str
    last_turn: int
    jobs: list[HeldJob] = field(default_factory=list)
    known_to: tuple[int, str] = NOTHING
    missed: list[HeldJob] | None = None
    ready: bool = False
    gate: Gate | None = None
    opened: Gate | None = None

    @property
    def is_unread(self) -> bool:
        """Whether its jobs have to be read from the view."""
        return not self.jobs and self.known_to != EVERYTHING

    def add(self, job: HeldJob) -> None:
        if self.missed is not None:
            self.missed.append(job)
        if job.key > self.known_to or any(known.id == job.id for known in self.jobs):
            return
        insort(self.jobs, job, key=lambda each: each.key)
        if self.known_to == EVERYTHING and len(self.jobs) > 2 * KNOWN:
            self.known_to = self.jobs[KNOWN - 1].key
            del self.jobs[KNOWN:]

    def remove(self, job_id: str) -> bool:
        """Remove the job, and return whether it was the first."""
        first = bool(self.jobs) and self.jobs[0].id == job_id
        for jobs in (self.jobs, self.missed or []):
            jobs[:] = [job for job in jobs if job.id != job_id]
        return first


class Groups:
    """All groups with held jobs, by name. Times are in seconds of one clock."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._numbers = itertools.count()
        self._ready: list[tuple[int, int, Group]] = []
        """A heap: by ``Group.last_turn``, with a unique number."""
        self._blocked: dict[Gate, OrderedDict[str, Group]] = {}
        """The groups that each gate blocks, longest first."""
        self._timers: list[tuple[float, int, str | Gate]] = []
        """A heap of times, each with a unique number and the group whose first job is due, or the gate that opens."""

    def clear(self) -> None:
        """Forget all groups."""
        for collection in (self._groups, self._ready, self._blocked, self._timers):
            collection.clear()

    def get(self, name: str | None) -> Group | None:
        """Return the group with this name, if it has held jobs."""
        return self._groups.get(name or "")

    def get_or_add(self, name: str, known_to: tuple[int, str] = NOTHING) -> Group:
        """Return the group with this name. A new one is in no state; ``known_to``: see ``Group``."""
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name, next(self._numbers), known_to=known_to)
        return group

    def remove(self, group: Group) -> None:
        """Forget a group without jobs, which ``pop_ready`` has returned."""
        del self._groups[group.name]
        self.pass_on(group)

    @property
    def any_ready(self) -> bool:
        """Whether a group is ready."""
        return bool(self._ready)

    def next_at(self) -> float:
        """Return when a group may be ready without any change: 0 if one is, infinity if none will be."""
        if self._ready:
            return 0.0
        return self._timers[0][0] if self._timers else math.inf

    def pop_ready(self) -> Group | None:
        """Return the ready group that comes first, which is in no state then; None if there is none."""
        if not self._ready:
            return None
        _, _, group = heapq.heappop(self._ready)
        group.ready = False
        return group

    def pop_unread(self) -> list[Group]:
        """Return the ready groups that come next, while their jobs have to be read, up to ``GROUPS_READ``."""
        unread: list[Group] = []
        while self._ready and len(unread) < GROUPS_READ and self._ready[0][2].is_unread:
            _, _, group = heapq.heappop(self._ready)
            group.ready = False
            unread.append(group)
        return unread

    def make_ready(self, group: Group) -> None:
        """Make the group ready, from any state."""
        if group.gate is not None:
            groups = self._blocked[group.gate]
            del groups[group.name]
            if not groups:
                del self._blocked[group.gate]
            group.gate = None
        if not group.ready:
            group.ready = True
            heapq.heappush(self._ready, (group.last_turn, next(self._numbers), group))

    def delay(self, group: Group, until: float) -> None:
        """Make the group ready at a later time. Another group gets its opening."""
        self._wake_at(until, group.name)
        self.pass_on(group)

    def block(self, group: Group, gate: Gate, opens: float | None) -> None:
        """Note that a gate is closed for the first job of the group. ``opens``: until when, if that is known."""
        groups = self._blocked.setdefault(gate, OrderedDict())
        if opens is not None and (not groups or group.opened == gate):
            self._wake_at(opens, gate)
        groups[group.name] = group
        group.gate = gate
        if group.opened == gate:  # it has still waited longest
            groups.move_to_end(group.name, last=False)
            group.opened = None
        else:
            self.pass_on(group)

    def note_placed(self, group: Group, gates: tuple[Gate, ...]) -> None:
        """Note that the first job of the group is placed and has slots of ``gates``. The group comes last now."""
        del group.jobs[0]
        group.last_turn = next(self._numbers)
        if group.opened not in gates:
            self.pass_on(group)
        group.opened = None
        self.make_ready(group)

    def open(self, gate: Gate) -> None:
        """Make the group ready that the gate has blocked longest."""
        if (groups := self._blocked.get(gate)) is None:
            return
        _, group = groups.popitem(last=False)
        if not groups:
            del self._blocked[gate]
        group.gate, group.opened = None, gate
        self.make_ready(group)

    def pass_on(self, group: Group) -> None:
        """Give the opening of the group, if it has one, to the next group that the gate blocks."""
        gate, group.opened = group.opened, None
        if gate is not None:
            self.open(gate)

    def unblock_all(self) -> None:
        """Make all blocked groups ready."""
        for group in [group for groups in self._blocked.values() for group in groups.values()]:
            self.make_ready(group)

    def wake(self, now: float) -> None:
        """Make those groups ready whose time has come, and open the gates whose time has come."""
        while self._timers and self._timers[0][0] <= now:
            _, _, what = heapq.heappop(self._timers)
            if isinstance(what, tuple):
                self.open(what)
            elif (group := self._groups.get(what)) is not None:
                self.make_ready(group)

    def wake_timed(self, now: float) -> None:
        """Make all timed groups ready at the next ``wake``, so that the times of their jobs are computed again."""
        for name in [what for _, _, what in self._timers if isinstance(what, str)]:
            self._wake_at(now, name)

    def _wake_at(self, when: float, what: str | Gate) -> None:
        heapq.heappush(self._timers, (when, next(self._numbers), what))
