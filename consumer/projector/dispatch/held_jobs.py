"""Decides which held jobs are placed next: whose gates are open, and whose turn it is.

Theory of operation. Jobs with the same ordering key, or else with the same gates, form a **group**, and only the first
job of a group can be next. A group is *ready* until its first job is not due yet or meets a closed gate. Then it waits
for the time or for the gate. When a gate opens, the group that has waited longest becomes ready. If it does not use the
opening, the next one does. Of the ready groups, that comes first whose last job was placed longest ago. So groups take
turns, and one with few jobs does not wait for one with many.

Everything here follows from the view: a projector that becomes active reads which jobs have slots and which groups
wait. After that it learns of changes from the batches that are committed. Of each group it knows the first jobs, all
up to ``_Group.known_to``, and reads more when they are placed. So memory grows with the groups, not with the jobs.

Jobs with a **unique key** or a **debounce key** are all known (``schemas.keyed_runs``): few are open for each key. One
that is to be cancelled for another one is not taken any more.
"""

import asyncio
import heapq
import itertools
import math
import time
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.schemas.gates import Gate, Gates, GateState
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.keyed_runs import GatedRun, KeyedRuns, RunToCancel
from jobtape.schemas.rules.rules import RulesInForce
from jobtape.view.store import HeldJob

KNOWN: Final = 200
"""Jobs of a group that are read at once, and about as many are kept in memory."""
GROUPS_READ: Final = 50
"""Groups whose jobs are read at once."""
AT_ONCE: Final = 200
"""Groups that are looked at before other tasks get their turn."""
CLOCK_STEP: Final = 0.5
"""Seconds by which the system clock is set before the times of jobs are computed again."""
_PAUSE: Final = ("a pause", "")
"""The gate for which jobs wait that are paused. No limit has this name."""
_FIRST: Final = (-1, "")
_ALL: Final = (2**63, "")


@dataclass(slots=True, eq=False)
class _Group:
    """The held jobs of one group.

    ``since``: a number that is the higher, the later one of its jobs was placed. ``jobs``: the first ones, sorted,
    without those that were taken. ``known_to``: all held jobs up to this key are in ``jobs`` or were taken. ``missed``:
    while jobs are being read, those that were committed meanwhile. ``ready``: whether it is among the ready groups.
    ``gate``: the one that it waits for. ``opened``: the one because of which it is ready.
    """

    name: str
    since: int
    jobs: list[HeldJob] = field(default_factory=list)
    known_to: tuple[int, str] = _FIRST
    missed: list[HeldJob] | None = None
    ready: bool = False
    gate: Gate | None = None
    opened: Gate | None = None

    @property
    def is_unread(self) -> bool:
        """Whether its jobs have to be read from the view."""
        return not self.jobs and self.known_to != _ALL

    def add(self, job: HeldJob) -> None:
        if self.missed is not None:
            self.missed.append(job)
        if job.key > self.known_to or any(known.id == job.id for known in self.jobs):
            return
        insort(self.jobs, job, key=lambda each: each.key)
        if self.known_to == _ALL and len(self.jobs) > 2 * KNOWN:
            self.known_to = self.jobs[KNOWN - 1].key
            del self.jobs[KNOWN:]

    def remove(self, job_id: str) -> bool:
        """Return whether it was the first job."""
        first = bool(self.jobs) and self.jobs[0].id == job_id
        for jobs in (self.jobs, self.missed or []):
            jobs[:] = [job for job in jobs if job.id != job_id]
        return first


class HeldJobs:
    """The held jobs of the view, and the slots that other jobs have. Times are those of ``time.monotonic``."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active
        self._state = GateState(time.monotonic())
        self._groups: dict[str, _Group] = {}
        self._numbers = itertools.count()
        self._ready: list[tuple[int, int, _Group]] = []
        """A heap: by ``_Group.since``, with a unique number."""
        self._blocked: dict[Gate, OrderedDict[str, _Group]] = {}
        """The groups that wait for each gate, longest first."""
        self._timers: list[tuple[float, int, str | Gate]] = []
        """A heap of times, each with a unique number and the group whose first job is due, or the gate that opens."""
        self._shift = _shift()
        """The system clock minus the monotonic clock, as it was when the times of ``_timers`` were computed."""
        self._taken: dict[str, Job | None] = {}
        """The jobs that ``take`` has returned, until ``give_back``, as they were committed last meanwhile."""
        self.rules = RulesInForce()
        """The rules that are in force."""
        self._keyed_runs = KeyedRuns()
        self.to_cancel: deque[RunToCancel] = deque()
        """The runs that are to be cancelled because of their unique or debounce keys; see ``take_runs_to_cancel``."""
        self._missed: list[Job] | None = None
        """While the view is being read: the jobs that were committed meanwhile."""

    async def load(self) -> None:
        """Read the slots and groups from the view. Call it when everything that others have placed is folded.

        Raises ViewUnavailable.
        """
        self._missed = []
        for collection in (self._groups, self._ready, self._blocked, self._timers, self._taken, self.to_cancel):
            collection.clear()
        self._state = GateState(time.monotonic())
        self.rules = RulesInForce.of(await self._active.call(self._active.store.open_jobs.rules))
        self._state.new_limits = self.rules.limits
        placed = await self._active.call(self._active.store.open_jobs.with_slots)
        for gated in placed:
            self._state.set_slots(gated.run.id, gated.gates.slots(ended=gated.state is JobState.FAILED))
        held = await self._active.call(self._active.store.open_jobs.held_with_keys)
        for name in await self._active.call(self._active.store.open_jobs.held_groups):
            self._make_ready(self._groups.setdefault(name, _Group(name, next(self._numbers))))
        self._shift = _shift()
        noted = await self._active.call(self._active.store.rates.latest)
        for gate, at in noted.items():
            self._state.note_latest(gate, at - self._shift)  # the monotonic clock is that of this host
        self._keyed_runs = KeyedRuns({gate: datetime.fromtimestamp(at, UTC) for gate, at in noted.items()})
        self.to_cancel.extend(self._keyed_runs.note([*placed, *held]))
        missed, self._missed = self._missed, None
        self.notify(missed, ())

    def notify(self, jobs: Iterable[Job], in_flight: Collection[str]) -> bool:
        """Take over what the fold has committed. Return whether a job may be placed because of it.

        ``in_flight``: the jobs whose placement is published and not folded.
        """
        gated = [job for job in jobs if job.gates is not None and not job.gates.flow]
        if self._missed is not None:
            self._missed += gated
            return False
        if runs := [GatedRun.of(job, job.gates) for job in gated if job.gates is not None and _has_key(job.gates)]:
            self.to_cancel.extend(self._keyed_runs.note(runs))
        changed = bool(self.to_cancel)
        for job in gated:
            assert job.gates is not None
            if job.gates.rule:
                changed = self._apply(job) or changed
                continue
            held = job.state is JobState.HELD and not job.imported
            if job.id in self._taken:
                self._taken[job.id] = job
            if job.has_slots:
                freed = self._state.set_slots(job.id, job.gates.slots(ended=job.final))
            elif held and (job.id in in_flight or job.id in self._taken):
                continue
            else:
                freed = list(self._state.free(job.id))
            for gate in freed:
                self._open(gate)
            if held:
                self._add(job)
            elif (group := self._groups.get(job.gate_group or "")) is not None and group.remove(job.id):
                self._make_ready(group)
        return changed or bool(self._ready)

    async def take(self, limit: int, closed: Mapping[str, float]) -> list[HeldJob]:
        """Return at most ``limit`` jobs to place now, with their slots taken.

        ``closed``: queues to leave out, each with the time until which. Call ``give_back`` for every job. Raises
        ViewUnavailable.
        """
        now = time.monotonic()
        if abs(_shift() - self._shift) > CLOCK_STEP:  # it was set, or this host was suspended
            self._shift = _shift()
            for name in [what for _, _, what in self._timers if isinstance(what, str)]:
                self._wake_at(now, name)
        while self._timers and self._timers[0][0] <= now:
            _, _, what = heapq.heappop(self._timers)
            if isinstance(what, tuple):
                self._open(what)
            elif (group := self._groups.get(what)) is not None:
                self._make_ready(group)
        taken: list[HeldJob] = []
        examined = 0
        while self._ready and len(taken) < limit:
            examined += 1
            if examined % AT_ONCE == 0:
                await asyncio.sleep(0)  # with very many groups, the lease has to be renewed meanwhile
            _, _, group = heapq.heappop(self._ready)
            group.ready = False
            if group.is_unread:
                await self._read([group, *self._pop_unread()])
            elif not group.jobs:
                del self._groups[group.name]
                self._pass_on(group)
            elif (job := self._next(group, now, closed)) is not None:
                taken.append(job)
                self._taken[job.id] = None
        await self._note_rates([job.gates for job in taken])
        return taken

    def delay(self, jobs: Iterable[HeldJob]) -> None:
        """Note that ``jobs``, which ``take`` has returned last, are published only now. Rates count from then on."""
        now = time.monotonic()
        for job in jobs:
            self._state.delay(job.gates, now)

    async def charge(self, jobs: Iterable[Job]) -> None:
        """Count the next attempts of ``jobs`` for their rates. Raises ViewUnavailable."""
        gates = [job.gates for job in jobs if job.gates is not None]
        for each in gates:
            self._state.charge(each, time.monotonic())
        await self._note_rates(gates)

    async def _note_rates(self, placed: Iterable[Gates]) -> None:
        """Note in the view when the latest placements of slow rates were due, before they are published."""
        shift = _shift()
        latest: dict[Gate, float] = {}
        for gates in placed:
            latest |= self._state.latest_of_slow_rates(gates)
        if latest:
            await self._active.call(self._active.store.rates.note, {gate: at + shift for gate, at in latest.items()})

    def is_unchanged(self, job_id: str) -> bool:
        """Return whether nothing was committed about a job since ``take`` has returned it. It was cancelled otherwise,
        and possibly redriven, and must not be placed.
        """
        return self._taken.get(job_id) is None

    def give_back(self, job: HeldJob, *, placed: bool, held: bool = True) -> None:
        """Say what became of a job that ``take`` has returned. ``held``: whether it is still held if not ``placed``."""
        changed = self._taken.pop(job.id, None)
        if placed:
            return
        for gate in self._state.free(job.id):
            self._open(gate)
        if changed is not None:
            if changed.state is JobState.HELD and not changed.imported:
                self._add(changed)
        elif held:
            group = self._groups.get(job.group)
            if group is None:
                group = self._groups[job.group] = _Group(job.group, next(self._numbers), known_to=job.key)
            group.add(job)
            self._make_ready(group)

    async def take_runs_to_cancel(self, limit: int) -> list[RunToCancel]:
        """Return at most ``limit`` of the runs that are to be cancelled, each once. Raises ViewUnavailable."""
        taken = [self.to_cancel.popleft() for _ in range(min(limit, len(self.to_cancel)))]
        if starts := self._keyed_runs.debounce_starts(taken):  # noted before the first jobs are gone
            at = {gate: time.timestamp() for gate, time in starts.items()}
            await self._active.call(self._active.store.rates.note, at)
        return taken

    def next_at(self) -> float:
        """Return when ``take`` may return a job although nothing is committed until then."""
        if self._ready:
            return 0.0
        return self._timers[0][0] if self._timers else math.inf

    def _apply(self, rule: Job) -> bool:
        """Put a rule in force or end it, and make all groups ready. Return whether it changed anything."""
        held = rule.state is JobState.HELD and not rule.imported
        if not (self.rules.add(rule.id, rule.type, rule.payload or {}) if held else self.rules.remove(rule.id)):
            return False
        self._state.new_limits = self.rules.limits
        for group in [group for groups in self._blocked.values() for group in groups.values()]:
            self._make_ready(group)
        return True

    def _add(self, job: Job) -> None:
        assert job.gates is not None and job.gate_group is not None and job.queue is not None and job.rank is not None
        held = HeldJob(
            job.id, job.type, job.queue, job.run_at or datetime.now(UTC), job.gates, job.gate_group, job.rank
        )
        group = self._groups.get(held.group)
        if group is None:  # no other job of the group is held
            group = self._groups[held.group] = _Group(held.group, next(self._numbers), known_to=_ALL)
        group.add(held)
        if group.jobs and group.jobs[0] is held:
            self._make_ready(group)

    def _next(self, group: _Group, now: float, closed: Mapping[str, float]) -> HeldJob | None:
        """Return the first job of the group with its slots taken; None if the group has to wait."""
        job = group.jobs[0]
        if self._keyed_runs.will_cancel(job.id):
            del group.jobs[0]
            self._make_ready(group)
            return None
        due = max(job.run_at, self._keyed_runs.opens_at(job.id, job.gates) or job.run_at)
        since = now + (due - datetime.now(UTC)).total_seconds()
        until = max(since, closed.get(job.queue, 0.0))
        if until > now:
            self._wake_at(until, group.name)
            self._pass_on(group)
            return None
        if job.queue in self.rules.paused_queues or job.type in self.rules.paused_types:
            self._block(group, _PAUSE, None)
            return None
        if (found := self._state.closed_gate(job.gates, now)) is not None:
            self._block(group, *found)
            return None
        self._state.take_slots(job.id, job.gates, now, since=since)
        self._keyed_runs.end_debounce(job.gates, job.id)
        del group.jobs[0]
        group.since = next(self._numbers)
        if group.opened not in job.gates.slots():
            self._pass_on(group)
        group.opened = None
        self._make_ready(group)
        return job

    def _block(self, group: _Group, gate: Gate, opens: float | None) -> None:
        groups = self._blocked.setdefault(gate, OrderedDict())
        if opens is not None and (not groups or group.opened == gate):
            self._wake_at(opens, gate)
        groups[group.name] = group
        group.gate = gate
        if group.opened == gate:  # it keeps its place
            groups.move_to_end(group.name, last=False)
            group.opened = None
        else:
            self._pass_on(group)

    def _wake_at(self, when: float, what: str | Gate) -> None:
        heapq.heappush(self._timers, (when, next(self._numbers), what))

    def _open(self, gate: Gate) -> None:
        """Make the group that has waited longest for the gate ready."""
        if (groups := self._blocked.get(gate)) is None:
            return
        _, group = groups.popitem(last=False)
        if not groups:
            del self._blocked[gate]
        group.gate, group.opened = None, gate
        self._make_ready(group)

    def _pass_on(self, group: _Group) -> None:
        """Let the next group use the opening of a gate, if this one was to use it."""
        gate, group.opened = group.opened, None
        if gate is not None:
            self._open(gate)

    def _make_ready(self, group: _Group) -> None:
        if group.gate is not None:
            groups = self._blocked[group.gate]
            del groups[group.name]
            if not groups:
                del self._blocked[group.gate]
            group.gate = None
        if not group.ready:
            group.ready = True
            heapq.heappush(self._ready, (group.since, next(self._numbers), group))

    def _pop_unread(self) -> list[_Group]:
        """Return the ready groups that come next, while they have to be read too."""
        unread: list[_Group] = []
        while self._ready and len(unread) < GROUPS_READ and self._ready[0][2].is_unread:
            _, _, group = heapq.heappop(self._ready)
            group.ready = False
            unread.append(group)
        return unread

    async def _read(self, groups: list[_Group]) -> None:
        for group in groups:
            group.missed = []
        after = {group.name: group.known_to for group in groups}
        try:
            found = await self._active.call(self._active.store.open_jobs.held, after, KNOWN)
        except BaseException:
            for group in groups:
                self._make_ready(group)
            raise
        for group in groups:
            missed, group.missed = group.missed or [], None
            rows = found[group.name]
            group.known_to = rows[-1].key if len(rows) == KNOWN else _ALL
            for job in (*rows, *missed):
                if not self._state.has_slots(job.id):
                    group.add(job)
            self._make_ready(group)


def _shift() -> float:
    return time.time() - time.monotonic()


def _has_key(gates: Gates) -> bool:
    return gates.unique is not None or gates.debounce is not None
