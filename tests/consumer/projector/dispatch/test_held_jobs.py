"""Held jobs are taken in order, within their limits, and as soon as their gates are open, by an independent count."""

import asyncio
import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import delete

from jobtape.consumer.projector.dispatch import held_groups, held_jobs
from jobtape.consumer.projector.dispatch.held_jobs import HeldJobs
from jobtape.schemas.events import JobEvent, Placed, submitted
from jobtape.schemas.events.interventions import cancelled, redriven, released
from jobtape.schemas.events.placement import placement
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import FINAL, Job, JobState, Order
from jobtape.schemas.queueing.gates import DebounceKey, Gates, Limit, UniqueKey
from jobtape.view import tables
from jobtape.view.store import FoldedBatch, Store
from tests.schemas.events_of_a_job import SOURCE, Execution, at
from tests.view.samples import begin, commit, job_id

pytestmark = pytest.mark.anyio

PAST = at(0)


class _ActiveProjector:
    """The part of an active projector that reads the view."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._threads = ThreadPoolExecutor(1)

    async def call(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


class World:
    """The tape, the view, and what the placer has in flight."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.held = HeldJobs(_ActiveProjector(store))  # type: ignore[arg-type]
        self.jobs: dict[str, Job] = {}
        self.in_flight: dict[str, JobEvent] = {}
        self.cursor = 0
        self._offset = -1
        self._committed: list[Job] = []

    def fold(self, *events: JobEvent) -> None:
        """Commit the events in one batch. ``notify`` reports them to the held jobs."""
        changed: dict[str, Job] = {}
        for event in events:
            self.cursor += 1
            before = self.jobs.get(event.subject)
            after = evolve(before, event, self.cursor)
            if after is not before:
                self.jobs[event.subject] = changed[event.subject] = after
        checkpoint = self.store.checkpoint()
        assert checkpoint is not None
        offset = 0 if checkpoint.offset is None else checkpoint.offset + 1
        assert commit(self.store, FoldedBatch(offset=offset, digest="", jobs=list(changed.values())))
        self._committed += changed.values()

    def notify(self) -> None:
        committed, self._committed = self._committed, []
        for job in committed:
            if not job.awaits_placement:
                self.in_flight.pop(job.id, None)
        self.held.notify(committed, self.in_flight)

    async def place(self, limit: int, meanwhile: Callable[[list[Job]], None] | None = None) -> list[Job]:
        """Take jobs as the placer does, check that each may be placed, and return those that are placed.

        ``meanwhile``: called with the jobs that were taken, before they are published.
        """
        taken = await self.held.take(limit, {})
        assert len(taken) <= limit
        jobs = {row.id: self.jobs[row.id] for row in taken}
        events: dict[str, Placed] = {}
        for row in taken:
            assert row.id not in self.in_flight
            job = jobs[row.id]
            event = placement(job, source=SOURCE, time=at(0), fence=self.cursor) if job.awaits_placement else None
            if event is not None:
                self.check_may_be_placed(job)
                events[job.id] = self.in_flight[job.id] = event
        if meanwhile is not None:
            for job_id in events:
                del self.in_flight[job_id]
            meanwhile([jobs[job_id] for job_id in events])
        placed: list[Job] = []
        for row in taken:
            event = events.get(row.id) if self.held.is_unchanged(row.id) else None
            if event is not None:
                self.in_flight[row.id] = event
                placed.append(jobs[row.id])
            self.held.give_back(row, placed=event is not None, held=False)
        return placed

    async def cancel_duplicates(self) -> None:
        """Fold the cancellations of jobs whose unique key another one has."""
        cancelled_runs = await self.held.take_runs_to_cancel(1000)
        for cancelling in cancelled_runs:
            job, other = self.jobs[cancelling.gated.run.id], self.jobs[cancelling.instead]
            kind = "debounce" if cancelling.reason == "debounced" else "unique"
            assert getattr(job.gates, kind).gate == getattr(other.gates, kind).gate
        self.fold(
            *(
                cancelled(each.gated.run, source=SOURCE, time=at(0), reason=each.reason, duplicate_of=each.instead)
                for each in cancelled_runs
            )
        )

    def slots(self) -> Counter[tuple[str, str]]:
        """Count the slots from the jobs alone."""
        taken: Counter[tuple[str, str]] = Counter()
        for job in self.jobs.values():
            assert job.gates is not None
            open_run = job.state not in FINAL and job.state is not JobState.HELD
            if job.id in self.in_flight or open_run:
                taken.update(limit.gate for limit in job.gates.limits)
                if job.gates.unique is not None:
                    taken[job.gates.unique.gate] += 1
            if job.gates.ordering_key is not None and (
                job.id in self.in_flight or open_run or (job.state is JobState.FAILED and job.has_slots)
            ):
                taken["", job.gates.ordering_key] += 1
        return taken

    def closed(self, job: Job) -> bool:
        assert job.gates is not None
        taken, key = self.slots(), job.gates.ordering_key
        earlier = key is not None and any(
            other.gates is not None and other.gates.ordering_key == key and (other.rank or 0) < (job.rank or 0)
            for other in self.waiting()
        )
        return (
            earlier
            or (key is not None and taken["", key] > 0)
            or (job.gates.unique is not None and taken[job.gates.unique.gate] > 0)
            or any(taken[limit.gate] >= limit.at_most for limit in job.gates.limits)
        )

    def waiting(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.state is JobState.HELD and job.id not in self.in_flight]

    def unique_keys_of_several_jobs(self) -> list[tuple[str, str]]:
        """Return the keys that several open jobs have, besides one that runs and one that waits to replace it."""
        of_key: defaultdict[tuple[str, str], list[tuple[JobState, str]]] = defaultdict(list)
        for job in self.jobs.values():
            if not job.final and job.gates is not None and job.gates.unique is not None:
                of_key[job.gates.unique.gate].append((job.state, job.gates.unique.conflict))
        waits = (JobState.HELD, "replace")
        return [
            key
            for key, found in of_key.items()
            if len(found) > 1
            and not (len(found) == 2 and waits in found and any(state is JobState.RUNNING for state, _ in found))
        ]

    def check_may_be_placed(self, job: Job) -> None:
        assert not self.closed(job), f"{job.gates} are closed: {self.slots()}"


GATES = [
    *(Gates(ordering_key=key, hold=hold) for key in "ab" for hold in (False, True)),
    Gates(ordering_key="a", limits=(Limit(name="mail", at_most=2),)),
    Gates(ordering_key="c", limits=(Limit(name="mail", at_most=2), Limit(name="api", at_most=1))),
    *(Gates(limits=(Limit(name="mail", at_most=2),), turn=turn) for turn in "xy"),
    Gates(limits=(Limit(name="mail", at_most=2), Limit(name="tenant", key="x", at_most=1))),
    Gates(limits=(Limit(name="api", at_most=1), Limit(name="tenant", key="y", at_most=3))),
]
UNIQUE = [
    *(Gates(unique=UniqueKey(name="u", key=key, conflict="return")) for key in "ab"),
    *(Gates(unique=UniqueKey(name="u", key=key, conflict="replace")) for key in "bc"),
    Gates(unique=UniqueKey(name="u", key="c"), ordering_key="a"),
    Gates(unique=UniqueKey(name="u", key="d"), limits=(Limit(name="mail", at_most=2),)),
    Gates(debounce=DebounceKey(name="d", seconds=1, at_most=2)),
    Gates(debounce=DebounceKey(name="d", seconds=1), limits=(Limit(name="api", at_most=1),)),
    Gates(debounce=DebounceKey(name="e", seconds=1), unique=UniqueKey(name="u", key="c", conflict="replace")),
]


def new(n: int, gates: Gates, **order: Any) -> JobEvent:
    fields = {"type": "add", "payload": {}, "queue": "default", "timeout": 1.0, "gates": gates} | order
    return submitted(job_id(n), Order(**fields), source=SOURCE, time=PAST + timedelta(microseconds=n))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('held')}/view.db")
    store.migrate()
    begin(store)
    yield store
    store.close()


@pytest.fixture
def world(shared: Store, monkeypatch: pytest.MonkeyPatch) -> World:
    """Small pages, so that groups are read again and again."""
    monkeypatch.setattr(held_groups, "KNOWN", 3)
    monkeypatch.setattr(held_groups, "GROUPS_READ", 2)
    with shared._database.writing() as connection:
        connection.execute(delete(tables.jobs))
    return World(shared)


def _end(world: World, job: Job, dice: random.Random) -> JobEvent:
    execution = Execution("e", attempt=job.attempt_due, run=job.run, job=job.id)
    ends: list[JobEvent] = [execution.succeeded(), execution.failed(), execution.retrying()]
    return dice.choice(ends)


def _step(world: World, dice: random.Random, n: int) -> None:
    """Let something happen to random jobs, in one batch."""
    events: list[JobEvent] = []
    for i in range(dice.randint(1, 4)):
        what = dice.random()
        jobs = list(world.jobs.values())
        job = dice.choice(jobs) if jobs else None
        if what < 0.45 or job is None:
            events.append(new(10 * n + i, dice.choice(GATES + UNIQUE)))
        elif what < 0.6 and world.in_flight:
            events.append(dice.choice(list(world.in_flight.values())))
        elif job.state is JobState.RETRYING:
            event = placement(job, source=SOURCE, time=at(0), fence=0)
            assert event is not None
            events.append(event)
        elif job.state is JobState.QUEUED and what < 0.7:
            events.append(Execution("e", attempt=job.attempt_due, run=job.run, job=job.id).started())
        elif job.state in (JobState.QUEUED, JobState.RUNNING):
            events.append(_end(world, job, dice))
        elif job.final and job.has_slots and what < 0.8:
            events.append(released(job, source=SOURCE, time=at(0)))
        elif job.final and what < 0.9:
            events.append(redriven(job, source=SOURCE, time=at(job.run)))
        elif not job.final and what > 0.9:
            events.append(cancelled(job, source=SOURCE, time=at(0)))
    world.fold(*events)


def _interfere(world: World, dice: random.Random, taken: list[Job]) -> None:
    """Cancel some jobs that are about to be placed, and let some of them run again."""
    for job in taken:
        if dice.random() < 0.5:
            world.fold(cancelled(job, source=SOURCE, time=at(0)))
            if dice.random() < 0.5:
                world.notify()
            if dice.random() < 0.7:
                world.fold(redriven(world.jobs[job.id], source=SOURCE, time=at(job.run)))
    if dice.random() < 0.7:
        world.notify()


@pytest.mark.parametrize("seed", range(25))
async def test_jobs_are_taken_as_soon_as_their_gates_are_open_and_not_before(world: World, seed: int) -> None:
    dice = random.Random(seed)
    await world.held.load()
    for n in range(1, 60):
        _step(world, dice, n)
        if dice.random() < 0.3:
            await world.place(dice.randint(1, 5))  # it does not know yet what was committed
        world.notify()
        if dice.random() < 0.05:  # another projector takes over: first, what is in flight is folded
            world.fold(*world.in_flight.values())
            world.in_flight.clear()
            world.notify()
            await world.held.load()
        if dice.random() < 0.7:
            await world.place(dice.choice([1, 100]), partial(_interfere, world, dice) if dice.random() < 0.5 else None)
        if dice.random() < 0.5:
            await world.cancel_duplicates()
            world.notify()
            while await world.place(100):
                pass
            assert world.unique_keys_of_several_jobs() == []
            assert [job.gates for job in world.waiting() if not world.closed(job)] == []
    await _work_off(world)


async def _work_off(world: World) -> None:
    """Everything that is submitted runs in the end."""
    for _ in range(1000):
        await world.cancel_duplicates()
        world.notify()
        await world.place(100)
        world.fold(*world.in_flight.values())
        world.in_flight.clear()
        open_jobs = [job for job in world.jobs.values() if not job.final and job.state is not JobState.HELD]
        holding = [job for job in world.jobs.values() if job.final and job.has_slots]
        if not open_jobs and not holding and not world.waiting():
            break
        world.fold(*(released(job, source=SOURCE, time=at(0)) for job in holding))
        world.fold(*(Execution("e", attempt=job.attempt_due, run=job.run, job=job.id).succeeded() for job in open_jobs))
        world.notify()
    assert [job.state for job in world.jobs.values() if not job.final] == []
    assert world.slots() == Counter()
    assert all(not group.jobs for group in world.held._groups._groups.values())


async def _turns(world: World, gates: Sequence[Gates], numbers: Sequence[int]) -> list[str]:
    """Submit ``numbers`` of jobs with each of ``gates``, and return the turns in the order in which they are placed."""
    await world.held.load()
    each = itertools.count()
    world.fold(*(new(next(each), one, run_at=PAST) for one, n in zip(gates, numbers, strict=True) for _ in range(n)))
    world.notify()
    order: list[str] = []
    for _ in range(sum(numbers)):
        (job,) = await world.place(100)
        assert job.gates is not None
        order.append(job.gates.turn or job.gates.ordering_key or "")
        world.fold(*world.in_flight.values())
        world.notify()
        world.fold(Execution("e", job=job.id).succeeded())
        world.notify()
    return order


async def test_groups_take_turns_at_a_shared_limit(world: World) -> None:
    one = Limit(name="mail", at_most=1)
    gates = [Gates(limits=(one,), turn="many"), Gates(limits=(one,), turn="few")]
    order = await _turns(world, gates, [40, 4])
    assert order[:8].count("few") == 4


async def test_ordering_keys_take_turns_at_a_shared_limit(world: World) -> None:
    one = Limit(name="mail", at_most=1)
    gates = [Gates(limits=(one,), ordering_key="many"), Gates(limits=(one,), ordering_key="few")]
    order = await _turns(world, gates, [20, 3])
    assert order[:7].count("few") == 3


async def test_job_that_is_not_due_keeps_later_ones_of_its_ordering_key_waiting(world: World) -> None:
    await world.held.load()
    later = PAST.replace(year=9000)
    world.fold(new(1, GATES[0], run_at=later), new(2, GATES[0]), new(3, GATES[-1], run_at=later), new(4, GATES[-1]))
    world.notify()
    assert [job.id for job in await world.place(100)] == [job_id(4)]
    assert world.held.next_at() > time.monotonic() + 1e6
    world.fold(cancelled(world.jobs[job_id(1)], source=SOURCE, time=at(0)))
    world.notify()
    assert [job.id for job in await world.place(100)] == [job_id(2)]


async def test_jobs_are_due_by_the_clock_that_was_set(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the suspension of a virtual machine, whose monotonic clock stands still meanwhile."""
    await world.held.load()
    gates = Gates(debounce=DebounceKey(name="d", seconds=1800))
    later = datetime.now(UTC) + timedelta(minutes=30)
    world.fold(new(1, GATES[0], run_at=later), new(2, gates, run_at=datetime.now(UTC)), new(3, GATES[0]))
    world.notify()
    assert await world.place(100) == []
    assert world.held.next_at() > time.monotonic() + 1700

    suspended = SimpleNamespace(
        now=lambda: datetime.now(UTC) + timedelta(hours=1), time=lambda: time.time() + 3600, monotonic=time.monotonic
    )
    monkeypatch.setattr(held_jobs, "clock", suspended)
    assert [job.id for job in await world.place(100)] == [job_id(1), job_id(2)]


async def test_debounced_job_waits_and_cancels_the_ones_before(world: World) -> None:
    """One that was placed is left alone."""
    await world.held.load()
    gates = Gates(debounce=DebounceKey(name="d", seconds=86_400))
    now = datetime.now(UTC)
    world.fold(new(1, gates, run_at=PAST), new(2, gates, run_at=PAST), new(3, gates, run_at=now))
    world.notify()
    assert await world.place(100) == []
    assert world.held.next_at() > time.monotonic() + 80_000
    await world.cancel_duplicates()
    world.notify()
    assert [world.jobs[job_id(n)].duplicate_of for n in (1, 2, 3)] == [job_id(2), job_id(3), None]
    other = Gates(debounce=DebounceKey(name="e", seconds=86_400))
    world.fold(new(4, other, run_at=PAST))
    world.notify()
    assert [job.id for job in await world.place(100)] == [job_id(4)]
    world.fold(new(5, other))
    world.notify()
    assert await world.held.take_runs_to_cancel(100) == []


async def test_rate_is_taken_in_turn_by_all_groups(world: World) -> None:
    await world.held.load()
    rate = Limit(name="api", at_most=1000, per=1.0)
    gates = [Gates(limits=(rate,), turn=turn) for turn in "abc"]
    world.fold(*(new(n, gates[n % 3 if n < 9 else 0]) for n in range(30)))
    world.notify()
    order: list[str] = []
    deadline = time.monotonic() + 20
    while len(order) < 30 and time.monotonic() < deadline:
        order += [job.gates.turn for job in await world.place(100) if job.gates is not None]
        await asyncio.sleep(max(0.0, min(world.held.next_at() - time.monotonic(), 1.0)))
    assert len(order) == 30
    assert order[:9].count("b") == order[:9].count("c") == 3
