"""Jobs of the past are what an independent fold of the earlier events makes of them, single ones and lists."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from jobtape.broker.stream_reader import TapeMessage
from jobtape.consumer.folding import fold_batch
from jobtape.schemas import events, ids
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.events import JobEvent, Submitted
from jobtape.schemas.fold import evolve, fold
from jobtape.schemas.job import Job, JobState, Order
from jobtape.view import values
from jobtape.view.jobs import past
from jobtape.view.store import JobQuery, Store
from tests.schemas import job_lives as lives
from tests.schemas import reference
from tests.schemas.events_of_a_job import JOB
from tests.view.samples import NOON, commit, job_id, progressed, record, submitted, succeeded

JOBS, POINTS, LISTS = 120, 1000, 40


@dataclass
class World:
    """A tape with the events of many jobs, and each job after each of its events."""

    tape: list[JobEvent]
    states: dict[str, list[Job]] = field(default_factory=dict)
    cursors: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for offset, event in enumerate(self.tape):
            own = self.states.setdefault(event.subject, [])
            own.append(evolve(own[-1] if own else None, event, cursor_of(1, offset)))
            self.cursors.setdefault(event.subject, []).append(cursor_of(1, offset))

    def jobs_at(self, cursor: int) -> Iterator[Job]:
        """Return the jobs at a cursor, the newest id first."""
        for job in sorted(self.states, reverse=True):
            if known := bisect_right(self.cursors[job], cursor):
                yield self.states[job][known - 1]

    def tape_of(self, job: str, cursor: int) -> list[tuple[JobEvent, int]]:
        return [(self.tape[at - cursor_of(1, 0)], at) for at in self.cursors[job] if at <= cursor]


def random_lives(count: int) -> list[list[JobEvent]]:
    """Return sequences of events of one job, as they may be on the tape."""
    found: list[list[JobEvent]] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(lives.disturbed())
    def take(life: list[JobEvent]) -> None:
        found.append(life)

    take()
    return found


def make_world(chance: Random) -> World:
    """Give each sequence of events its own job and order, and shuffle all of them into one tape."""
    each = []
    for n, life in enumerate(random_lives(JOBS)):
        order = Order(
            type="add",
            payload={"n": n},
            queue=chance.choice(["main", "slow"]),
            labels={name: chance.choice("ab") for name in ("tenant", "colour") if chance.random() < 0.7},
            timeout=60,
            max_attempts=3,
        )
        name = job_id(n, NOON + timedelta(seconds=chance.randrange(5)))
        each.append([own(event, name, order) for event in life])
    turns = [n for n, life in enumerate(each) for _ in life]
    chance.shuffle(turns)
    remaining = [iter(life) for life in each]
    return World([next(remaining[turn]) for turn in turns])


def own(event: JobEvent, name: str, order: Order) -> JobEvent:
    if isinstance(event, Submitted):
        return events.submitted(name, order, source=event.source, time=event.time)
    return events.decode(events.encode(event).replace(JOB.encode(), name.encode()))


def write(store: Store, world: World, chance: Random) -> None:
    """Commit the tape in batches of many sizes, made by the projector's code."""
    first = 0
    while first < len(world.tape):
        batch = world.tape[first : first + chance.randrange(1, 200)]
        messages = [TapeMessage(offset, events.encode(event), "event") for offset, event in enumerate(batch, first)]
        assert commit(store, fold_batch(messages, 1, store.jobs))
        first += len(batch)


def random_query(chance: Random) -> dict[str, Any]:
    every: dict[str, list[Any]] = {
        "states": [[JobState.SUCCEEDED], [JobState.RUNNING, JobState.RETRYING], list(JobState)],
        "queues": [["main"]],
        "labels": [[("tenant", "a")], [("tenant", "a"), ("colour", "b")]],
        "reasons": [["error"], ["timeout", "error"]],
        "types": [["add"], ["mail"]],
        "since": [NOON + timedelta(seconds=2)],
    }
    return {name: chance.choice(values) for name, values in every.items() if chance.random() < 0.3}


def fits(job: Job, query: dict[str, Any]) -> bool:
    labels = job.labels or {}
    return (
        ("states" not in query or job.state in query["states"])
        and ("queues" not in query or job.queue in query["queues"])
        and all(labels.get(name) == value for name, value in query.get("labels", ()))
        and ("reasons" not in query or job.reason in query["reasons"])
        and ("types" not in query or job.type in query["types"])
        and ("since" not in query or job.id >= ids.first_id_at(query["since"]))
    )


def listed(store: Store, query: dict[str, Any], cursor: int, limit: int) -> list[Job]:
    """Return the jobs of all pages."""
    found: list[Job] = []
    before: str | None = None
    while True:
        page = store.past.page(JobQuery(limit=limit, before=before, **query), cursor)
        assert len(page.jobs) <= limit
        assert page.before is None or before is None or page.before < before
        found += page.jobs
        before = page.before
        if before is None:
            return found


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(Random(5))


def test_past_jobs_equal_fold_of_earlier_events(store: Store, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "SNAPSHOT_EVERY", 4)
    chance = Random(6)
    write(store, world, chance)
    for n in range(POINTS):
        job, cursor = chance.choice(list(world.states)), cursor_of(1, chance.randrange(-1, len(world.tape)))
        known = world.tape_of(job, cursor)
        found = store.past.job(job, cursor)
        assert found == fold(known).get(job), (job, cursor)
        if found is not None and n % 10 == 0:  # a second, slow implementation of the rules
            expected_job = reference.status([event for event, _ in known])
            expected_job["cursor"] = known[expected_job["cursor"]][1]
            assert {name: getattr(found, name) for name in expected_job} == expected_job, (job, cursor)
    monkeypatch.setattr(past, "EXAMINED", 30)  # so that it ends many pages
    for _ in range(LISTS):
        cursor, query = cursor_of(1, chance.randrange(-1, len(world.tape))), random_query(chance)
        expected = [job for job in world.jobs_at(cursor) if fits(job, query)]
        assert listed(store, query, cursor, chance.randrange(3, 40)) == expected, (cursor, query)
    end = cursor_of(1, len(world.tape) - 1)
    assert listed(store, {}, end, 50) == store.list_jobs(JobQuery(limit=JOBS + 1)), "at the end it is the list of now"


def test_past_of_job_with_many_events_reads_few(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    order = submitted(1, payload={"text": "x"})
    tape: list[JobEvent] = [order, *(progressed(order, n) for n in range(1, 1500))]
    record(store, *tape)
    decoded: list[bytes] = []

    def decode(body: bytes) -> JobEvent:
        decoded.append(body)
        return events.decode(body)

    monkeypatch.setattr(past, "decode", decode)
    for offset in range(100, 1500, 99):
        decoded.clear()
        found = store.past.job(order.subject, cursor_of(1, offset))
        assert found == fold([(event, cursor_of(1, n)) for n, event in enumerate(tape[: offset + 1])])[order.subject]
        assert len(decoded) < 600


def test_page_examines_limited_jobs_and_names_next(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "EXAMINED", 10)
    orders = [submitted(n) for n in range(25)]
    record(store, *orders, succeeded(orders[3]))
    end = cursor_of(1, 25)
    page = store.past.page(JobQuery(states=[JobState.SUCCEEDED], limit=5), end)
    assert (page.jobs, page.before) == ([], orders[15].subject)
    page = store.past.page(JobQuery(states=[JobState.SUCCEEDED], limit=5, before=page.before), end)
    assert (page.jobs, page.before) == ([], orders[5].subject)
    page = store.past.page(JobQuery(states=[JobState.SUCCEEDED], limit=5, before=page.before), end)
    assert ([job.id for job in page.jobs], page.before) == ([orders[3].subject], None)


def test_cursor_at_is_where_clocks_pass_time(store: Store) -> None:
    seconds = [0, 1, 1, 3, 2, 4, 9, 5, 6, 6, 7]
    record(store, *(submitted(n, NOON + timedelta(seconds=second)) for n, second in enumerate(seconds)))
    for tenths in range(-10, 100):
        time = NOON + timedelta(seconds=tenths / 10)
        cursor, last = store.past.cursor_at(time)
        if cursor == 0:
            assert tenths < 0
            assert not last
            continue
        row, *later = store.history(after=cursor - 1, limit=2)
        assert row.cursor == cursor
        assert row.time <= time
        assert last == (not later)
        if later:
            assert later[0].time > time
    assert store.past.cursor_at(NOON + timedelta(seconds=1.5)) == (cursor_of(1, 2), False)
    assert store.past.cursor_at(NOON + timedelta(seconds=9)) == (cursor_of(1, 10), True)


def test_cursor_at_time_before_first_event(store: Store) -> None:
    assert store.past.cursor_at(NOON) == (0, True)
    record(store, submitted(1))
    assert store.past.cursor_at(NOON - timedelta(seconds=1)) == (0, False)
    assert store.past.page(JobQuery(), 0).jobs == []


def test_positions_divide_history_evenly(store: Store) -> None:
    assert store.past.positions(5, 0) == []
    orders = [submitted(n, NOON + timedelta(minutes=n)) for n in range(101)]
    record(store, *orders)
    found = store.past.positions(11, 0)
    assert [position.cursor for position in found] == [cursor_of(1, n) for n in range(0, 101, 10)]
    assert [position.time for position in found] == [order.time for order in orders[::10]]
    assert [position.cursor for position in store.past.positions(2, cursor_of(1, 40))] == [
        cursor_of(1, 40),
        cursor_of(1, 100),
    ]
    assert len(store.past.positions(500, 0)) == 101, "each event once"
