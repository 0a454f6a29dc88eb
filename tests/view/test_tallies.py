"""The sums of jobs and events are right after every commit, also after kills, rebuilds and the removal of old jobs."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from jobtape.consumer.folding import fold_messages
from jobtape.consumer.replays.rebuild import Rebuilder
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.events import Failed, JobEvent, Placed, Retrying, Submitted, Succeeded, encode
from jobtape.schemas.job import ErrorInfo
from jobtape.schemas.queueing.gates import Gates, Limit, UniqueKey
from jobtape.view import projection, tables
from jobtape.view.jobs.statistics import Range
from jobtape.view.store import FoldedBatch, RawMessage, Store
from jobtape.view.tallies import SHORTEST, Ages, duration_bucket, duration_of, percentile
from tests.consumer.rebuild_helpers import task_slice
from tests.counted import ALL_TIME, ERROR, Counted
from tests.schemas import events_of_a_job as facts
from tests.schemas.job_lives import Tape, disturbed, interleaved
from tests.view.samples import commit, job_id

NOW = datetime.fromtimestamp(time.time() // 3600 * 3600 + 1800).astimezone()
DAY = timedelta(days=1)
GATES = Gates(
    limits=(Limit(name="mail", at_most=1), Limit(name="mail", at_most=1, per=1.0), Limit(name="crm", at_most=2)),
    unique=UniqueKey(name="order", key="7", conflict="replace"),
)
RECENT = Range(int((NOW - DAY).timestamp()) // 3600 * 60, 2**40)


class Killed(Exception):
    pass


def varied(tape: Tape, job: int, random: Random) -> Tape:
    """Move the life of a job to another time, and vary its type, queue, gates, errors and durations."""
    kind, queue = random.choice(["add", "mail"]), random.choice(["default", "slow"])
    gates = random.choice([None, GATES, Gates(ordering_key="k", limits=GATES.limits[:1])])
    start = NOW - random.choice([0.05, 0.5, 1.5, 3.0, 20.0]) * DAY - timedelta(microseconds=random.randrange(10**6))
    offset = start - tape[0].time
    order = {"type": kind, "queue": queue, "gates": gates}
    return [_varied(event, job_id(job, start), order, offset, random) for event in tape]


def _varied(event: JobEvent, job: str, order: dict[str, Any], offset: timedelta, random: Random) -> JobEvent:
    data: dict[str, Any] = {"job_type": order["type"]}
    if isinstance(event, Submitted | Placed):
        data["order"] = event.data.order.model_copy(update=order)
    if isinstance(event, Retrying):
        data["next_at"] = event.data.next_at + offset
    if isinstance(event, Failed | Retrying):
        data["error"] = ErrorInfo(type=random.choice(["KeyError", "ValueError"]), message="m")
    if isinstance(event, Succeeded | Failed):
        data["duration"] = random.choice([None, 0.0]) if isinstance(event, Failed) else 10 ** random.uniform(-4, 5)
        data["started_at"] = event.time + offset
    update = {"subject": job, "time": event.time + offset, "data": event.data.model_copy(update=data)}
    return event.model_copy(update=update)


@st.composite
def tapes(draw: st.DrawFn) -> tuple[Tape, Random]:
    """The events of some jobs, mixed, and what else is random."""
    random = Random(draw(st.integers(0, 2**32)))
    lives = [varied(draw(disturbed()), number, random) for number in range(draw(st.integers(3, 8)))]
    return draw(interleaved(lives)), random


@settings(max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(drawn=tapes())
def test_sums_equal_a_count_of_the_events(store: Store, drawn: tuple[Tape, Random]) -> None:
    tape, random = drawn
    first = _emptied(store)
    counted = Counted()
    gone: set[str] = set()
    at, rebuilds = 0, 0
    while at < len(tape):
        events = tape[at : at + random.randint(1, 12)]
        entries = [RawMessage(cursor_of(1, first + at + n), encode(event)) for n, event in enumerate(events)]
        at += len(entries)
        folded = fold_messages(entries, store.jobs, store.retention.gone)
        batch = replace(folded, offset=first + at - 1, digest="d")
        if random.random() < 0.3:
            _killed(store, batch)
        assert commit(store, batch)
        for entry, event in zip(entries, events, strict=True):
            if event.subject not in gone:
                counted.read(event, entry.cursor)
        action = random.random()
        if action < 0.1:
            gone |= _pruned(store, counted, random)
        elif action < 0.25:
            rebuilds += 1
            working = Rebuilder(store, task_slice())
            state = working.from_archive(store.rebuilds.begin(str(rebuilds), by_job=random.random() < 0.5))
            if random.random() < 0.5:
                gone |= _pruned(store, counted, random)
            working.switch(state)
            assert store.take_lease("me", 600)
        elif action < 0.35:
            _trimmed(store)
        assert counted.differences(store, ALL_TIME) == []
    _trimmed(store)
    assert counted.differences(store, ALL_TIME, 60) == []
    assert counted.differences(store, RECENT, 1) == []


def _emptied(store: Store) -> int:
    """Empty all tables except the checkpoint; return the next offset."""
    with store.rebuilds.database.writing() as connection:
        for table in tables.metadata.sorted_tables:
            if table is not tables.checkpoint:
                connection.execute(delete(table))
    now = store.checkpoint()
    assert now is not None
    return 0 if now.offset is None else now.offset + 1


def _killed(store: Store, batch: FoldedBatch) -> None:
    """The process ends after all was written and before the transaction is committed."""

    def write(*arguments: Any) -> None:
        whole(*arguments)
        raise Killed

    whole: Callable[..., None] = projection.write
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(projection, "write", write)
        commit(store, batch)


def _pruned(store: Store, counted: Counted, random: Random) -> set[str]:
    before = NOW - random.choice([0.0, 1.0, 10.0]) * DAY
    assert store.retention.prune("me", before) is not None
    gone = store.retention.gone(list(counted.jobs))
    counted.remove(gone)
    return gone


def _trimmed(store: Store) -> None:
    ages = Ages(NOW.timestamp())
    for old in store.statistics.old_hours(ages):
        assert store.statistics.trim("me", old, ages)
    assert store.statistics.trim_rest("me", NOW)
    assert store.statistics.old_hours(ages) == []


def test_old_sums_are_dropped_and_states_stay(store: Store) -> None:
    random = Random(1)
    life = varied([facts.submitted(0), facts.Execution("a").failed(5)], 1, random)
    entries = [RawMessage(cursor_of(1, n), encode(event)) for n, event in enumerate(life)]
    folded = fold_messages(entries, store.jobs)
    commit(store, replace(folded, offset=1, digest="d"))
    assert len(store.statistics.failures(ALL_TIME, 10)) == 1
    later = NOW + 40 * DAY
    ages = Ages(later.timestamp())
    assert not store.statistics.trim("another", store.statistics.old_hours(ages)[0], ages)
    for old in store.statistics.old_hours(ages):
        assert store.statistics.trim("me", old, ages)
    assert store.statistics.trim_rest("me", later)
    assert store.statistics.totals(ALL_TIME) == {}
    assert store.statistics.failures(ALL_TIME, 10) == []
    assert store.statistics.first_minute() is None
    assert [count.n for count in store.statistics.jobs()] == [1]
    assert sum(store.counts().values()) == 2
    # What is too old already is not written at all.
    assert Ages(later.timestamp()).rows(dict(folded.tally)) == Ages(2.0**40).rows(dict(folded.tally))


@given(st.floats(SHORTEST, 3e8))
def test_duration_is_at_most_19_percent_off(seconds: float) -> None:
    assert seconds / ERROR <= duration_of(duration_bucket(seconds)) <= seconds * ERROR


def test_percentiles_of_few_durations() -> None:
    assert percentile({}, 0.5) is None
    assert percentile({0: 1}, 0.99) == duration_of(0) == 0.001
    assert percentile({40: 1, 60: 1}, 0.5) == duration_of(40)
    assert percentile({40: 99, 60: 1}, 0.99) == duration_of(40)
    assert percentile({40: 98, 60: 2}, 0.99) == duration_of(60)
    assert duration_bucket(-5.0) == duration_bucket(0.0) == duration_bucket(0.0009) == 0
    assert duration_bucket(SHORTEST) == 1
