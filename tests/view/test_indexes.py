"""SQLite reads the next timers in the order of their index: sorting a million of them would take half a second."""

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, make_url

from jobtape.view.store import Store
from tests.view.samples import NOON, record, submitted

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

READS: dict[str, tuple[str, Callable[[Store], object]]] = {
    "timers": ("jobs_timed", lambda store: len(store.open_jobs.timed(10))),
    "timers without": ("jobs_timed", lambda store: len(store.open_jobs.timed(10, ["a"], ["b"], ["c"]))),
    "earliest timer": ("jobs_timed", lambda store: store.open_jobs.earliest_timed()),
    "queues": ("jobs_open", lambda store: store.open_jobs.queues()),
}


@pytest.mark.parametrize("read", READS)
def test_index_gives_the_order(store: Store, database_url: str, read: str) -> None:
    record(store, *(submitted(n, run_at=NOON + timedelta(days=n)) for n in range(20)))
    index, call = READS[read]
    statements: list[tuple[str, Any]] = []

    def executed(_connection: object, _cursor: object, sql: str, parameters: Any, *_: object) -> None:
        if "FROM jobs INDEXED" in sql:
            statements.append((sql, parameters))

    event.listen(Engine, "before_cursor_execute", executed)
    try:
        assert call(store)
    finally:
        event.remove(Engine, "before_cursor_execute", executed)
    assert statements
    with sqlite3.connect(Path(make_url(database_url).database or "")) as connection:
        for sql, parameters in statements:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
            assert len(plan) == 1, plan
            assert index in plan[0]
