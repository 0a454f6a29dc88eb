"""Decides which held jobs are placed next.

Theory of operation. Jobs with the same ordering key, or else with the same gates, form a **group**, and only the first
job of a group can be next. The groups take turns, so one with few jobs does not wait for one with many;
``held_groups`` says which group is next, and this module whether its first job can be placed: it is due, its queue
takes work, no pause is in force, and its gates are open.

Everything here follows from the view: a projector that becomes active reads which jobs have slots and which groups
have held jobs. After that it learns of changes from the batches that are committed. Of each group it knows the first
jobs, all up to ``Group.known_to``, and reads more when they are placed. So memory grows with the groups, not with the
jobs.

Jobs with a **unique key** or a **debounce key** are all known (``schemas.keyed_runs``): few are open for each key. One
that is to be cancelled for another one is not taken any more.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.consumer.projector.dispatch import held_groups
from jobtape.consumer.projector.dispatch.held_groups import EVERYTHING, Group, Groups
from jobtape.process import clock
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.keyed_runs import GatedRun, KeyedRuns, RunToCancel
from jobtape.schemas.queueing.gates import Gate, Gates, GateState
from jobtape.schemas.rules.rules import RulesInForce
from jobtape.view.store import HeldJob

AT_ONCE: Final = 200
"""Groups that are examined before other tasks of the event loop run."""
CLOCK_STEP: Final = 0.5
"""Seconds by which the system clock is set before the times of jobs are computed again."""
_PAUSE: Final = ("a pause", "")
"""The gate for which jobs wait that are paused. No limit has this name."""


class HeldJobs:
    """The held jobs of the view, and the slots that other jobs have. Times are those of ``time.monotonic``."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active
        self._state = GateState(clock.monotonic())
        self._groups = Groups()
        self._shift = _shift()
        """The system clock minus the monotonic clock, as it was when the times of timed groups were computed."""
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
        self._groups.clear()
        self._taken.clear()
        self.to_cancel.clear()
        self._state = GateState(clock.monotonic())
        self.rules = RulesInForce.of(await self._active.call(self._active.store.open_jobs.rules))
        self._state.new_limits = self.rules.limits
        placed = await self._active.call(self._active.store.open_jobs.with_slots)
        for gated in placed:
            slots = gated.gates.slots(ended=gated.state is JobState.FAILED, awaits_follow_ups=gated.awaits_follow_ups)
            self._state.set_slots(gated.run.id, slots)
        held = await self._active.call(self._active.store.open_jobs.held_with_keys)
        for name in await self._active.call(self._active.store.open_jobs.held_groups):
            self._groups.make_ready(self._groups.get_or_add(name))
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
            held = job.state is JobState.HELD and not job.imported and not job.awaits_follow_ups
            if job.id in self._taken:
                self._taken[job.id] = job
            if job.has_slots:
                freed = self._state.set_slots(
                    job.id, job.gates.slots(ended=job.final, awaits_follow_ups=job.awaits_follow_ups)
                )
            elif held and (job.id in in_flight or job.id in self._taken):
                continue
            else:
                freed = list(self._state.free(job.id))
            for gate in freed:
                self._groups.open(gate)
            if held:
                self._add(job)
            elif (group := self._groups.get(job.gate_group)) is not None and group.remove(job.id):
                self._groups.make_ready(group)
        return changed or self._groups.any_ready

    async def take(self, limit: int, closed: Mapping[str, float]) -> list[HeldJob]:
        """Return at most ``limit`` jobs to place now, with their slots taken.

        ``closed``: queues to leave out, each with the time until which. Call ``give_back`` for every job. Raises
        ViewUnavailable.
        """
        now = clock.monotonic()
        if abs(_shift() - self._shift) > CLOCK_STEP:  # it was set, or this host was suspended
            self._shift = _shift()
            self._groups.wake_timed(now)
        self._groups.wake(now)
        taken: list[HeldJob] = []
        examined = 0
        while len(taken) < limit and (group := self._groups.pop_ready()) is not None:
            examined += 1
            if examined % AT_ONCE == 0:
                await asyncio.sleep(0)  # with very many groups, the lease has to be renewed meanwhile
            if group.is_unread:
                await self._read([group, *self._groups.pop_unread()])
            elif not group.jobs:
                self._groups.remove(group)
            elif (job := self._next(group, now, closed)) is not None:
                taken.append(job)
                self._taken[job.id] = None
        await self._note_rates([job.gates for job in taken])
        return taken

    def delay(self, jobs: Iterable[HeldJob]) -> None:
        """Note that ``jobs``, which ``take`` has returned last, are published only now. Rates count from then on."""
        now = clock.monotonic()
        for job in jobs:
            self._state.delay(job.gates, now)

    async def charge(self, jobs: Iterable[Job]) -> None:
        """Count the next attempts of ``jobs`` for their rates. Raises ViewUnavailable."""
        gates = [job.gates for job in jobs if job.gates is not None]
        for each in gates:
            self._state.charge(each, clock.monotonic())
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
            self._groups.open(gate)
        if changed is not None:
            if changed.state is JobState.HELD and not changed.imported:
                self._add(changed)
        elif held:
            group = self._groups.get_or_add(job.group, known_to=job.key)
            group.add(job)
            self._groups.make_ready(group)

    async def take_runs_to_cancel(self, limit: int) -> list[RunToCancel]:
        """Return at most ``limit`` of the runs that are to be cancelled, each once. Raises ViewUnavailable."""
        taken = [self.to_cancel.popleft() for _ in range(min(limit, len(self.to_cancel)))]
        if starts := self._keyed_runs.debounce_starts(taken):  # noted before the first jobs are gone
            at = {gate: time.timestamp() for gate, time in starts.items()}
            await self._active.call(self._active.store.rates.note, at)
        return taken

    def next_at(self) -> float:
        """Return when ``take`` may return a job although nothing is committed until then."""
        return self._groups.next_at()

    def _apply(self, rule: Job) -> bool:
        """Put a rule in force or end it, and make all groups ready. Return whether it changed anything."""
        held = rule.state is JobState.HELD and not rule.imported
        if not (self.rules.add(rule.id, rule.type, rule.payload or {}) if held else self.rules.remove(rule.id)):
            return False
        self._state.new_limits = self.rules.limits
        self._groups.unblock_all()
        return True

    def _add(self, job: Job) -> None:
        assert job.gates is not None and job.gate_group is not None and job.queue is not None and job.rank is not None
        held = HeldJob(job.id, job.type, job.queue, job.run_at or clock.now(), job.gates, job.gate_group, job.rank)
        group = self._groups.get_or_add(held.group, known_to=EVERYTHING)  # if new, no other job of it is held
        group.add(held)
        if group.jobs and group.jobs[0] is held:
            self._groups.make_ready(group)

    def _next(self, group: Group, now: float, closed: Mapping[str, float]) -> HeldJob | None:
        """Return the first job of the group with its slots taken; None if the group has to wait."""
        job = group.jobs[0]
        if self._keyed_runs.will_cancel(job.id):
            del group.jobs[0]
            self._groups.make_ready(group)
            return None
        due = max(job.run_at, self._keyed_runs.opens_at(job.id, job.gates) or job.run_at)
        since = now + (due - clock.now()).total_seconds()
        until = max(since, closed.get(job.queue, 0.0))
        if until > now:
            self._groups.delay(group, until)
            return None
        if job.queue in self.rules.paused_queues or job.type in self.rules.paused_types:
            self._groups.block(group, _PAUSE, None)
            return None
        if (found := self._state.closed_gate(job.gates, now)) is not None:
            self._groups.block(group, *found)
            return None
        self._state.take_slots(job.id, job.gates, now, since=since)
        self._keyed_runs.end_debounce(job.gates, job.id)
        self._groups.note_placed(group, job.gates.slots())
        return job

    async def _read(self, groups: list[Group]) -> None:
        for group in groups:
            group.missed = []
        after = {group.name: group.known_to for group in groups}
        try:
            found = await self._active.call(self._active.store.open_jobs.held, after, held_groups.KNOWN)
        except BaseException:
            for group in groups:
                self._groups.make_ready(group)
            raise
        for group in groups:
            missed, group.missed = group.missed or [], None
            rows = found[group.name]
            group.known_to = rows[-1].key if len(rows) == held_groups.KNOWN else EVERYTHING
            for job in (*rows, *missed):
                if not self._state.has_slots(job.id):
                    group.add(job)
            self._groups.make_ready(group)


def _shift() -> float:
    return clock.time() - clock.monotonic()


def _has_key(gates: Gates) -> bool:
    return gates.unique is not None or gates.debounce is not None
