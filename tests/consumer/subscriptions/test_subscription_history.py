"""Subscriptions with ``since``: history, then live events, from the database."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from jobtape import EventsMissed, HistoryGone, SubscriptionRefused, ViewUnavailable, subscribe
from jobtape.consumer.subscriptions.subscription import Subscription
from jobtape.schemas.cursor import cursor_of
from jobtape.settings import Settings
from jobtape.view.store import Gap, Store
from tests.consumer.background_subscriber import listening, results, take
from tests.view.samples import NOON, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

Subscribe = Callable[..., Subscription]


@pytest.fixture
def view(store: Store) -> Store:
    """An empty view, to which the test commits as the projector ``me``."""
    assert store.create_checkpoint()
    assert store.take_lease("me", 60) is not None
    return store


@pytest.fixture
def subscribed(database_url: str, view: Store) -> Subscribe:
    """``subscribe`` with this database and the shortest lease."""
    del view
    settings = Settings(database_url=database_url, projector_lease=0.5)
    return lambda **arguments: subscribe(settings=settings, **arguments)


def commit_jobs(store: Store, *numbers: int, **order: Any) -> None:
    """Commit each job with its success. Its result is its number."""
    for start in range(0, len(numbers), 50):
        orders = [submitted(n, **order) for n in numbers[start : start + 50]]
        record(store, *orders, *(succeeded(each, n) for each, n in zip(orders, numbers[start:], strict=False)))


async def test_history_then_live_events_in_the_tapes_order(view: Store, subscribed: Subscribe) -> None:
    commit_jobs(view, *range(130))
    middle = view.committed.reach().head
    commit_jobs(view, *range(130, 400))
    async with listening(subscribed(events="succeeded", since=middle)) as found:
        await eventually(lambda: len(found) >= 150)
        for n in range(400, 500, 20):  # while it reads, and when it has reached the end
            commit_jobs(view, *range(n, n + 20))
            if n == 440:
                await eventually(lambda: len(found) == 330)
        await eventually(lambda: len(found) >= 370)
    assert results(found) == list(range(130, 500))
    assert [each.cursor for each in found] == sorted({each.cursor for each in found})


async def test_since_first_and_since_now(view: Store, subscribed: Subscribe) -> None:
    commit_jobs(view, 1, 2)
    first = await take(subscribed(since="first"), 4)
    assert [(each.name, each.result) for each in first] == [
        ("submitted", None),
        ("submitted", None),
        ("succeeded", 1),
        ("succeeded", 2),
    ]
    async with subscribed(since="now") as received:
        commit_jobs(view, 3)
        async with asyncio.timeout(20):
            assert (await anext(received)).name == "submitted"
            assert (await anext(received)).result == 3


async def test_since_a_time(view: Store, subscribed: Subscribe) -> None:
    # The fourth job came late: its events are older than those before it.
    for n, minutes in enumerate([0, 10, 20, 5, 30, 40]):
        commit_jobs(view, n, at=NOON + timedelta(minutes=minutes))
    found = await take(subscribed(events="succeeded", since=NOON + timedelta(minutes=10)), 4)
    assert results(found) == [1, 2, 4, 5]
    async with listening(subscribed(events="succeeded", since=datetime.now(UTC))) as none_yet:
        commit_jobs(view, 7)
        commit_jobs(view, 8, at=datetime.now(UTC) + timedelta(minutes=1))
        await eventually(lambda: none_yet)
    assert results(none_yet) == [8]


async def test_filters_select_events(view: Store, subscribed: Subscribe) -> None:
    commit_jobs(view, 1, labels={"tenant": "a"}, correlation_id="c")
    commit_jobs(view, 2, type="mail.send", labels={"tenant": "b"})
    commit_jobs(view, 3, type="mail.send", labels={"tenant": "a", "more": "x"})
    assert results(await take(subscribed(since="first", types="mail.*", events=["succeeded"]), 2)) == [2, 3]
    assert results(await take(subscribed(since="first", labels={"tenant": "a"}, events=["succeeded"]), 2)) == [1, 3]
    assert results(await take(subscribed(since="first", correlation_id="c", events=["succeeded"]), 1)) == [1]
    job = submitted(3).subject
    found = await take(subscribed(since="first", job=job.upper()), 2)
    assert {each.job_id for each in found} == {job}


async def test_name_continues_after_the_last_body_that_ended(view: Store, subscribed: Subscribe) -> None:
    commit_jobs(view, *range(10))
    wanted = {"events": "succeeded", "since": "first", "name": "billing"}
    assert results(await take(subscribed(**wanted), 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="the body's own"):
        async with subscribed(**wanted) as received:
            async for each in received:
                if each.result == 4:
                    raise ValueError("the body's own")
    assert results(await take(subscribed(**wanted), 2)) == [4, 5]
    (position,) = view.positions.all()
    assert (position.name, position.owner) == ("subscription.billing", None)
    assert results(await take(subscribed(**wanted | {"since": "now"}), 4)) == [6, 7, 8, 9]


async def test_position_is_stored_when_the_next_event_is_requested(view: Store, subscribed: Subscribe) -> None:
    commit_jobs(view, 0, 1)
    async with subscribed(events="succeeded", since="first", name="billing") as received:
        first = await anext(received)
        before = view.positions.read("subscription.billing")
        await anext(received)
        after = view.positions.read("subscription.billing")
    assert before is not None
    assert after is not None
    assert before.cursor < first.cursor == after.cursor


async def test_position_passes_events_that_the_filter_skips(view: Store, subscribed: Subscribe) -> None:
    async with listening(subscribed(events="failed", since="first", name="alarm")):
        commit_jobs(view, *range(120))
        head = view.committed.reach().head
        await eventually(lambda: (found := view.positions.read("subscription.alarm")) and found.cursor == head)


async def test_second_consumer_of_a_name_stands_by_and_takes_over(view: Store, subscribed: Subscribe) -> None:
    wanted = {"events": "succeeded", "since": "first", "name": "billing"}
    async with listening(subscribed(**wanted)) as active:
        async with subscribed(**wanted | {"name": "other"}):
            pass
        commit_jobs(view, 1)
        await eventually(lambda: results(active) == [1])
        async with listening(subscribed(**wanted)) as standing_by:
            commit_jobs(view, 2)
            await eventually(lambda: results(active) == [1, 2])
            assert standing_by == []
    async with listening(subscribed(**wanted)) as third:
        commit_jobs(view, 3)
        await eventually(lambda: results(third)[-1:] == [3])
    assert results(third) in ([3], [2, 3])  # 2 again: the loop was cancelled before it requested the next event


async def test_consumer_takes_over_when_the_lease_of_a_dead_one_expires(view: Store, subscribed: Subscribe) -> None:
    commit_jobs(view, *range(5))
    position = "subscription.billing"
    assert view.positions.begin(position, cursor_of(1, 5))
    assert view.positions.take(position, "killed consumer", 1.0) is not None
    found = await take(subscribed(events="succeeded", since="first", name="billing"), 4)
    assert results(found) == [1, 2, 3, 4]


async def test_body_may_block_for_longer_than_the_lease(view: Store, subscribed: Subscribe) -> None:
    commit_jobs(view, 0, 1)
    owners = set()

    def block() -> None:
        ending = time.monotonic() + 1.2
        while time.monotonic() < ending:
            held = view.positions.read("subscription.slow")
            owners.add(held and held.owner)
            time.sleep(0.05)

    async with subscribed(events="succeeded", since="first", name="slow") as received:
        await anext(received)
        block()  # blocks the event loop too, for more than two leases
        assert (await anext(received)).result == 1
    assert len(owners) == 1
    assert None not in owners


async def test_removed_position_is_created_again(view: Store, subscribed: Subscribe) -> None:
    commit_jobs(view, 0)
    async with listening(subscribed(events="succeeded", since="first", name="billing")) as found:
        await eventually(lambda: results(found) == [0])
        view.positions.forget("subscription.billing")
        commit_jobs(view, 1)
        await eventually(lambda: len(results(found)) >= 3 and results(found)[-1:] == [1])
    assert results(found) in ([0, 0, 1], [0, 1, 0, 1])  # it starts as a new subscription does


async def test_lost_history_raises(view: Store, subscribed: Subscribe) -> None:
    commit_jobs(view, 0, 1)
    async with subscribed(events="succeeded", since="first") as running:
        assert [(await anext(running)).result for _ in range(2)] == [0, 1]
        assert view.report_gap("me", Gap("tape-replaced", "made again"))
        view.accept_gap()
        with pytest.raises(HistoryGone) as gone:
            await anext(running)
    assert isinstance(gone.value, EventsMissed)
    reach = view.committed.reach()
    assert gone.value.cursor == reach.horizon
    with pytest.raises(HistoryGone):
        await take(subscribed(since=cursor_of(1, 1)), 1)
    async with (
        listening(subscribed(events="succeeded", since=gone.value.cursor)) as behind,
        listening(subscribed(events="succeeded", since=cursor_of(1, 2), on_gap="skip")) as skipping,
    ):
        await eventually(lambda: results(skipping) == [1])
        commit_jobs(view, 7)
        await eventually(lambda: results(skipping) == [1, 7])
        await eventually(lambda: results(behind) == [7])


async def test_since_first_reports_no_gap_before_the_first_event(view: Store, subscribed: Subscribe) -> None:
    commit_jobs(view, 0)
    assert view.report_gap("me", Gap("tape-replaced", "made again"))
    view.accept_gap()
    commit_jobs(view, 1)
    assert results(await take(subscribed(events="succeeded", since="first"), 2)) == [0, 1]


async def test_cursor_of_another_tape_raises(
    view: Store, subscribed: Subscribe, caplog: pytest.LogCaptureFixture
) -> None:
    commit_jobs(view, 0)
    head = view.committed.reach().head
    with pytest.raises(HistoryGone) as gone:
        await take(subscribed(since=head + 100), 1)
    assert gone.value.cursor == head
    async with listening(subscribed(events="succeeded", since=head + 100, on_gap="skip")) as found:
        await eventually(lambda: "skipped, as on_gap" in caplog.text)
        commit_jobs(view, 1)
        await eventually(lambda: results(found) == [1])


async def test_subscription_continues_when_the_database_is_back(
    view: Store, subscribed: Subscribe, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    commit_jobs(view, 0)
    async with listening(subscribed(events="succeeded", since="first", name="billing")) as found:
        await eventually(lambda: results(found) == [0])
        with engine.connect() as admin:
            admin.execute(text("ALTER TABLE checkpoint RENAME TO away"))
            await eventually(lambda: "cannot be read" in caplog.text)
            admin.execute(text("ALTER TABLE away RENAME TO checkpoint"))
        commit_jobs(view, 1)
        await eventually(lambda: results(found) == [0, 1])
    engine.dispose()


async def test_cancelled_wait_loses_no_event(view: Store, subscribed: Subscribe) -> None:
    async with subscribed(events="succeeded", since="now") as received:
        for n in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(received), 0.02)
            commit_jobs(view, n)
            async with asyncio.timeout(20):
                assert (await anext(received)).result == n


async def test_missing_database_raises_at_once() -> None:
    with pytest.raises(ViewUnavailable):
        async with subscribe(since="first", settings=Settings(database_url="sqlite:////nowhere/view.db")):
            pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"events": "finished"}, "there is no event 'finished'"),
        ({"types": "*"}, "neither a job type"),
        ({"job": "7"}, "no job id"),
        ({"name": "a b"}, "cannot be the name"),
        ({"since": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"since": "yesterday"}, "'first' or 'now'"),
        ({"since": -1}, "not a cursor"),
        ({"expires": 0.5}, "expires"),
        (
            {"events": ["started", "failed"]},
            "started cannot be delivered .*since='now', or set JOBTAPE_RELAY_EVENTS=all",
        ),
        ({"events": "submitted", "settings": Settings(relay_events="all")}, "since='now'$"),
        ({"settings": Settings(relay_events="off")}, "nothing can be delivered .*since='now'"),
    ],
    ids=str,
)
def test_invalid_arguments_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SubscriptionRefused, match=message):
        subscribe(**arguments)


async def test_time_that_may_be_in_lost_history_raises(view: Store, subscribed: Subscribe) -> None:
    commit_jobs(view, 0, at=NOON)
    assert view.report_gap("me", Gap("tape-replaced", "made again"))
    view.accept_gap()
    commit_jobs(view, 1, at=NOON + timedelta(hours=10))
    with pytest.raises(HistoryGone):
        await take(subscribed(events="succeeded", since=NOON + timedelta(hours=5)), 1)
    commit_jobs(view, 2, at=NOON + timedelta(hours=20))
    assert results(await take(subscribed(events="succeeded", since=NOON + timedelta(hours=15)), 1)) == [2]
