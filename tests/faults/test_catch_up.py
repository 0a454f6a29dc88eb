"""Tests that a named catch-up subscriber gets every event in the order of the tape although it is killed repeatedly."""

import random
from pathlib import Path

import pytest

from jobtape.schemas.filters.selection import Selection
from jobtape.view.store import Store
from tests.faults.scale import on_database, scaled
from tests.faults.subscriber import Subscriber, without_repeats
from tests.view.samples import record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

KILLS = 2
BATCH = 20


def commit(store: Store, first: int) -> None:
    orders = [submitted(n) for n in range(first, first + BATCH)]
    record(store, *orders, *(succeeded(order) for order in orders))


@on_database("postgresql")
async def test_killed_subscriber_continues_by_name(store: Store, database_url: str, tmp_path: Path) -> None:
    assert store.create_checkpoint()
    assert store.take_lease("me", 600) is not None
    batches = iter(range(0, scaled(20) * BATCH, BATCH))
    for _ in range(8):
        commit(store, next(batches))
    settings = {"database_url": database_url, "lease": 0.5}
    with Subscriber(tmp_path / "received", settings, name="audit", since="first") as subscriber:
        for kill in range(1, KILLS + 1):
            await wait_received(subscriber, len(subscriber.lines()) + random.randrange(1, 60))
            subscriber.kill()
            for _ in range(4):
                commit(store, next(batches))
            assert len(subscriber.lines()) < 2 * BATCH * (8 + 4 * kill), (
                "the subscriber was killed before it had all events"
            )
            subscriber.start()
        for first in batches:
            commit(store, first)
        expected = all_events(store)
        await eventually(
            lambda: len(without_repeats(subscriber.lines())) >= len(expected) or subscriber.fault,
            60,
            what="the subscriber has all events",
        )
        assert subscriber.fault is None
        lines = subscriber.lines()
    assert without_repeats(lines) == expected
    assert len(lines) - len(expected) <= KILLS


async def wait_received(subscriber: Subscriber, n: int) -> None:
    await eventually(lambda: len(subscriber.lines()) >= n, 60, what=f"the subscriber has {n} events")


def all_events(store: Store) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    cursor, full = 0, True
    while full:
        page = store.committed.page(cursor, 1000, Selection())
        found += [(row.cursor, row.event_id) for row in page.rows]
        cursor, full = page.cursor, page.full
    return found
