"""SQLite uses the index that gives the order or has the fewest jobs. Another one takes half a second of a million."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, event, make_url

from jobtape.consumer.folding import fold_messages
from jobtape.schemas.job import JobState
from jobtape.view.store import JobQuery, Store
from tests.view.samples import NOON, record, submitted, succeeded
from tests.view.test_rebuilds import fold_all

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

READS: dict[str, tuple[str, Callable[[Store], object]]] = {
    "timers": ("jobs_timed", lambda store: len(store.open_jobs.timed(10))),
    "timers without": ("jobs_timed", lambda store: len(store.open_jobs.timed(10, ["a"], ["b"], ["c"]))),
    "earliest timer": ("jobs_timed", lambda store: store.open_jobs.earliest_timed()),
    "queues": ("jobs_open", lambda store: store.open_jobs.queues()),
    "oldest": ("jobs_open", lambda store: store.open_jobs.oldest(["main"], NOON + timedelta(days=30))),
}

OF_OPEN_JOBS: dict[str, Callable[[Store], object]] = {
    "overdue": lambda store: store.open_jobs.overdue("main", NOON, 9, "", 10),
    "flows": lambda store: store.flows.unfinished(),
    "deliveries": lambda store: store.webhooks.waiting_deliveries(),
}

LISTS: dict[str, tuple[str, JobQuery]] = {
    "few in the state": ("jobs_by_state", JobQuery(types=["add"], states=[JobState.SUCCEEDED], limit=2)),
    "few of the type": ("jobs_by_type", JobQuery(types=["rare"], states=[JobState.SCHEDULED], limit=2)),
    "few on the queue": ("jobs_by_queue", JobQuery(queues=["side"], states=[JobState.SCHEDULED], limit=2)),
    "several states": ("jobs_by_type", JobQuery(types=["add"], states=[JobState.SCHEDULED, JobState.QUEUED], limit=2)),
    "none fits": ("jobs_by_state", JobQuery(types=["add"], states=[JobState.FAILED], limit=2)),
}


@pytest.mark.parametrize("read", READS)
def test_index_gives_the_order(store: Store, database_url: str, read: str) -> None:
    record(store, *(submitted(n, run_at=NOON + timedelta(days=n)) for n in range(20)))
    index, call = READS[read]
    for _ in range(2):
        with executed() as statements:
            assert call(store)
        plan = plans(database_url, statements)[-1]
        assert len(plan) == 1, plan
        assert index in plan[0]
        switch_to_a_rebuild(store)


@pytest.mark.parametrize("read", OF_OPEN_JOBS)
def test_only_open_jobs_are_read(store: Store, database_url: str, read: str) -> None:
    for _ in range(2):
        with executed() as statements:
            OF_OPEN_JOBS[read](store)
        assert "jobs_open" in plans(database_url, statements)[0][0]
        switch_to_a_rebuild(store)


def test_indexes_are_always_made_in_the_same_order(store: Store, database_url: str) -> None:
    for _ in range(2):
        with sqlite3.connect(Path(make_url(database_url).database or "")) as connection:
            made = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'jobs' AND sql IS NOT NULL"
            names = [name for (name,) in connection.execute(f"{made} ORDER BY rowid")]
        assert len(names) > 5
        assert names == sorted(names)
        switch_to_a_rebuild(store)


@pytest.mark.parametrize("kind", LISTS)
def test_list_uses_the_index_with_the_fewest_jobs(store: Store, database_url: str, kind: str) -> None:
    later = NOON + timedelta(days=1)
    many = [submitted(n, run_at=later) for n in range(40)]
    ended = [submitted(n) for n in range(40, 44)]
    record(store, *many, *ended, *(succeeded(each) for each in ended))
    record(store, *(submitted(n, type="rare", queue="side", run_at=later) for n in range(50, 54)))
    index, query = LISTS[kind]
    switch_to_a_rebuild(store)
    with executed() as statements:
        found = store.list_jobs(query)
    assert [job.id for job in found] == sorted((job.id for job in found), reverse=True)
    assert all(job.type in (query.types or [job.type]) and job.state in query.states for job in found)
    assert len(found) == (0 if kind == "none fits" else 2)
    (plan,) = plans(database_url, statements)
    assert index in plan[0]


def test_label_gives_the_order(store: Store, database_url: str) -> None:
    record(store, *(submitted(n, labels={"tenant": str(n % 2), "all": "1"}) for n in range(20)))
    for labels in ([("tenant", "1")], [("tenant", "1"), ("all", "1")]):
        query = JobQuery(labels=labels, limit=3)
        with executed() as statements:
            found = store.list_jobs(query)
        assert [job.payload for job in found] == [{"x": n} for n in (19, 17, 15)]
        (plan,) = plans(database_url, statements)
        assert "job_labels" in plan[0]
        assert not any("ORDER BY" in step for step in plan), plan
        switch_to_a_rebuild(store)


def switch_to_a_rebuild(store: Store) -> None:
    """Replace the tables of jobs, which gives the indexes other names."""
    begun = store.rebuilds.begin(uuid4().hex)
    assert store.rebuilds.switch(fold_all(store, begun), fold_messages) is not None


@contextmanager
def executed() -> Iterator[list[tuple[str, Any]]]:
    """Yield the reads of jobs that are executed in the block, and their parameters."""
    found: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, sql: str, parameters: Any, *_: object) -> None:
        if "FROM jobs" in sql and "queue" in sql:
            found.append((sql, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def plans(database_url: str, statements: list[tuple[str, Any]]) -> list[list[str]]:
    """Return how SQLite would execute each of the statements, which must not be missing."""
    assert statements
    with sqlite3.connect(Path(make_url(database_url).database or "")) as connection:
        return [
            [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
            for sql, parameters in statements
        ]
