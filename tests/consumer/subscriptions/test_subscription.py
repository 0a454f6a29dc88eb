"""Live subscriptions: queues of their own on ``<ns>.results``. The tests publish events as the relay does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import pytest

from jobtape import BrokerUnavailable, DeliveredEvent, EventsMissed, JobtapeError, SubscriptionRefused, subscribe
from jobtape.broker import declare
from jobtape.consumer.subscriptions import result_queue
from jobtape.consumer.subscriptions.result_queue import RecentIds
from jobtape.consumer.subscriptions.subscription import Subscription
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.events import Failed, FailedData, JobEvent, Submitted
from jobtape.schemas.ids import attempt_event_id
from jobtape.schemas.job import ErrorInfo
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.consumer.background_subscriber import listening, results, take
from tests.consumer.installation import Rig
from tests.consumer.relay_messages import publish_body, publish_event
from tests.view.samples import submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

Subscribe = Callable[..., Subscription]
BILLING = "billing"


@pytest.fixture
async def subscribed(rig: Rig) -> AsyncIterator[Subscribe]:
    """``subscribe`` on this rig. The queue of the name ``billing`` is removed afterwards."""
    yield subscriber(rig)
    await declare.delete_queue(await rig.link.connection(), queue_of(rig))


def subscriber(rig: Rig) -> Subscribe:
    settings = Settings(rabbitmq_url=rig.url, namespace=rig.topology.namespace)
    return lambda **arguments: subscribe(settings=settings, **arguments)


def queue_of(rig: Rig) -> str:
    return rig.topology.subscription_name(BILLING)


def failed(of: Submitted, execution: str = "e1") -> Failed:
    return Failed(
        id=attempt_event_id(of.subject, 1, 1, "failed", execution),
        source=of.source,
        subject=of.subject,
        time=of.time,
        correlationid=of.correlationid,
        data=FailedData(
            job_type=of.data.job_type,
            run=1,
            attempt=1,
            reason="error",
            error=ErrorInfo(type="ValueError", message="bang"),
        ),
    )


async def publish(rig: Rig, *numbers: int, **order: Any) -> None:
    """Publish that these jobs succeeded. Result and offset of each are its number."""
    for n in numbers:
        event = succeeded(submitted(n, **order), n).model_copy(update={"correlationid": order.get("correlation_id")})
        await publish_event(rig, event, cursor_of(1, n), labels=order.get("labels"))


async def test_filters_select_events(rig: Rig, subscribed: Subscribe) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "all": {},
        "failed": {"events": "failed"},
        "mail": {"types": "mail.*"},
        "failed mail": {"events": ["failed"], "types": ["mail.*"]},
        "one job": {"job": submitted(3).subject},
        "tenant a": {"labels": {"tenant": "a"}},
        "conversation": {"correlation_id": "c"},
    }
    orders = {
        1: submitted(1),
        2: submitted(2, type="mail.send", labels={"tenant": "a", "x": "y"}),
        3: submitted(3, type="mail", labels={"tenant": "b"}),
        4: submitted(4, type="mail.fetch.all", correlation_id="c", labels={"tenant": "a"}),
    }
    outcomes: list[JobEvent] = [succeeded(orders[1]), succeeded(orders[2]), failed(orders[3]), failed(orders[4])]
    found: dict[str, list[DeliveredEvent]] = {}
    async with asyncio.TaskGroup() as group:
        entered = {name: asyncio.Event() for name in wanted}

        async def listen(name: str) -> None:
            async with subscribed(**wanted[name]) as received:
                entered[name].set()
                found[name] = []
                async for each in received:
                    if each.job_type == "end":
                        return
                    found[name].append(each)

        # Each filter also passes the last event, which ends its loop.
        for name, filters in wanted.items():
            if "types" in filters:
                filters["types"] = [*([filters["types"]] if isinstance(filters["types"], str) else filters["types"])]
                filters["types"].append("end")
            group.create_task(listen(name))
        for each in entered.values():
            await each.wait()
        for n, event in enumerate(outcomes, 1):
            await publish_event(rig, event, cursor_of(1, n), labels=orders[n].data.order.labels)
        end = failed(submitted(3, type="end", correlation_id="c"), "e2")
        await publish_event(rig, end, cursor_of(1, 9), labels={"tenant": "a"})
    numbers = {order.subject: n for n, order in orders.items()}
    assert {name: [numbers[each.job_id] for each in received] for name, received in found.items()} == {
        "all": [1, 2, 3, 4],
        "failed": [3, 4],
        "mail": [2, 4],
        "failed mail": [4],
        "one job": [3],
        "tenant a": [2, 4],
        "conversation": [4],
    }


async def test_named_subscription_gets_events_from_while_it_was_away(rig: Rig, subscribed: Subscribe) -> None:
    async with subscribed(name=BILLING):
        pass
    await publish(rig, 1, 2, 3)
    assert results(await take(subscribed(name=BILLING), 2)) == [1, 2]
    assert results(await take(subscribed(name=BILLING), 1)) == [3]


async def test_event_is_acknowledged_after_the_body(rig: Rig, subscribed: Subscribe) -> None:
    async with subscribed(name=BILLING):
        pass
    await publish(rig, 1, 2)
    with pytest.raises(ValueError, match="the body's own"):
        async with subscribed(name=BILLING) as received:
            async for each in received:
                if each.result == 2:
                    raise ValueError("the body's own")
    async with subscribed(name=BILLING) as received:
        assert (await anext(received)).result == 2, "only the body of 1 has ended"
    await eventually(rig.nothing_on(queue_of(rig)))


async def test_run_accepts_def_and_async_def(rig: Rig, subscribed: Subscribe) -> None:
    async with subscribed(name=BILLING):
        pass
    await publish(rig, 1, 2, 3, 4)
    called: list[Any] = []

    async def acallback(received: DeliveredEvent) -> None:
        if received.result == 3:
            raise ValueError("the callback's own")
        called.append(received.result)

    def callback(received: DeliveredEvent) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        called.append(received.result)
        if received.result == 4:
            raise ValueError("the callback's own")

    with pytest.raises(ValueError, match="the callback's own"):
        await subscribed(name=BILLING).run(acallback)
    assert called == [1, 2]
    with pytest.raises(ValueError, match="the callback's own"):
        await subscribed(name=BILLING).run(callback)
    assert called == [1, 2, 3, 4]


async def test_consumers_of_one_name_share_the_events(rig: Rig, subscribed: Subscribe) -> None:
    async with (
        listening(subscribed(name=BILLING, prefetch=1)) as one,
        listening(subscribed(name=BILLING, prefetch=1)) as other,
        listening(subscribed()) as by_itself,
    ):
        await publish(rig, *range(60))
        await eventually(lambda: len(one) + len(other) == 60)
        assert sorted(results(one) + results(other)) == list(range(60))
        assert min(len(one), len(other)) > 0
        await eventually(lambda: results(by_itself) == list(range(60)))


async def test_other_filter_or_limit_for_a_name_is_refused(rig: Rig, subscribed: Subscribe) -> None:
    async with subscribed(name=BILLING, events="succeeded"):
        pass
    for other in ({"events": "failed"}, {"events": "succeeded", "max_length": 7}):
        with pytest.raises(SubscriptionRefused, match="jobtape subscriptions remove"):
            async with subscribed(name=BILLING, **other):
                pass
    async with subscribed(name=BILLING, events=["succeeded", "succeeded"]):
        await publish(rig, 1)


async def test_repeats_and_unreadable_messages_are_dropped(
    rig: Rig, subscribed: Subscribe, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(subscribed(name=BILLING)) as found:
        await publish(rig, 1, 2, 1)
        await publish_body(rig, b"no event", "succeeded.add")
        await publish(rig, 2, 1, 3)
        await eventually(lambda: len(found) == 3)
        await eventually(rig.nothing_on(queue_of(rig)))
    assert results(found) == [1, 2, 3]
    assert "no event" in caplog.text


def test_recent_ids_are_bounded() -> None:
    recent = RecentIds(3)
    for n in range(5):
        recent.add(str(n))
    assert [n for n in range(5) if str(n) in recent] == [2, 3, 4]


async def test_removed_queue_is_declared_again_and_reported(
    rig: Rig, subscribed: Subscribe, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(subscribed(name=BILLING)) as found:
        await publish(rig, 1)
        await eventually(lambda: len(found) == 1)
        await declare.delete_queue(await rig.link.connection(), queue_of(rig))
        await eventually(lambda: "may have missed events: its queue was gone" in caplog.text)
        await eventually(lambda: _has_consumer(rig))
        await publish(rig, 2)
        await eventually(lambda: results(found) == [1, 2])


async def _has_consumer(rig: Rig) -> bool:
    found = await declare.depth(await rig.link.connection(), queue_of(rig))
    return found is not None and found.consumers == 1


async def test_missed_events_raise_with_on_gap_raise(rig: Rig, subscribed: Subscribe) -> None:
    async with subscribed(name=BILLING, on_gap="raise") as received:
        await publish(rig, 1, 2)
        assert [(await anext(received)).result for _ in range(2)] == [1, 2]
        await declare.delete_queue(await rig.link.connection(), queue_of(rig))
        with pytest.raises(EventsMissed) as missed:
            await asyncio.wait_for(anext(received), 20)
    assert missed.value.cursor == cursor_of(1, 2)
    assert f"subscribe again with since={cursor_of(1, 2)}" in str(missed.value)


async def test_events_missed_before_the_first_acknowledgement_says_what_to_do(rig: Rig, subscribed: Subscribe) -> None:
    wanted = {"name": BILLING, "max_length": 2}
    async with subscribed(**wanted):
        pass
    await publish(rig, 1, 2, 3)
    with pytest.raises(EventsMissed, match="since='first', or a cursor that you have stored") as missed:
        await take(subscribed(**wanted, on_gap="raise"), 1)
    assert missed.value.cursor is None


async def test_full_queue_drops_its_oldest_and_is_reported(
    rig: Rig, subscribed: Subscribe, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = {"name": BILLING, "max_length": 3}
    async with subscribed(**wanted):
        pass
    await publish(rig, 1, 2, 3, 4, 5)
    assert results(await take(subscribed(**wanted), 3)) == [3, 4, 5]
    assert "drops its oldest" in caplog.text


async def test_removed_exchange_is_declared_and_bound_again(
    rig: Rig, subscribed: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_queue, "CHECK_EVERY", 0.2)
    async with listening(subscribed()) as found:
        channel = await (await rig.link.connection()).channel()
        await channel.exchange_delete(rig.topology.results.name)

        async def delivered() -> bool:
            await publish(rig, 1)
            return bool(found)

        await eventually(lambda: _exchange_exists(rig))
        await eventually(delivered)


async def _exchange_exists(rig: Rig) -> bool:
    channel = await (await rig.link.connection()).channel()
    async with channel:
        try:
            await channel.get_exchange(rig.topology.results.name, ensure=True)
        except Exception:  # noqa: BLE001 - not found closes the channel
            return False
    return True


async def test_subscription_without_a_name_removes_its_queue(rig: Rig) -> None:
    names = []
    async with subscriber(rig)() as received:
        names.append(received._source._queue.name)  # type: ignore[union-attr]
        await publish(rig, 1)
        assert (await anext(received)).result == 1
    assert await declare.depth(await rig.link.connection(), names[0]) is None
    assert not [task for task in asyncio.all_tasks() if "subscription" in task.get_name()]


async def test_missing_broker_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_queue, "OPEN_TIMEOUT", 1.0)
    with pytest.raises(BrokerUnavailable, match="no broker at"):
        async with subscribe(settings=Settings(rabbitmq_url="amqp://guest:guest@127.0.0.1:1/")):
            pass


@pytest.mark.parametrize("since", [None, "first"])
async def test_another_event_loop_is_refused_at_once(rig: Rig, since: Literal["first"] | None, sqlite_url: str) -> None:
    Store(sqlite_url).migrate()
    settings = Settings(rabbitmq_url=rig.url, namespace=rig.topology.namespace, database_url=sqlite_url)

    async def entered_elsewhere() -> None:
        async with subscription:
            raise AssertionError("it is entered already")

    async with subscribe(settings=settings, since=since) as subscription:
        for _ in range(10):
            with pytest.raises(JobtapeError, match="another event loop"):
                await asyncio.to_thread(lambda: asyncio.run(anext_of(subscription)))
        with pytest.raises(JobtapeError, match="entered already"):
            await asyncio.to_thread(lambda: asyncio.run(entered_elsewhere()))

    async def subscribe_and_leave() -> None:
        async with subscribe(settings=settings, since=since):
            pass

    await asyncio.to_thread(lambda: asyncio.run(subscribe_and_leave()))


async def anext_of(subscription: Subscription) -> DeliveredEvent:
    return await anext(subscription)
