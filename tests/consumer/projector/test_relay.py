"""The relay publishes accepted events in the tape's order, at least once, and no old events."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from jobtape.broker import declare
from jobtape.consumer.projector.relay import WINDOW
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.messages.delivered_event import decode_delivered
from jobtape.view.store import Store
from tests.consumer import jobs
from tests.consumer.bound_queues import bound_queue, delete_queue, listening, without_repeats
from tests.consumer.installation import Rig, order_event
from tests.schemas.events_of_a_job import Execution
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def finished(rig: Rig, n: int) -> list[str]:
    """Publish ``n`` jobs and their success without a worker; return the ids of the ``succeeded`` events."""
    events = [order_event(rig.topology, "add") for _ in range(n)]
    await asyncio.gather(*(rig.publisher.publish(event, timeout=60) for event in events))
    done = [Execution("e", job=event.subject).succeeded(5) for event in events]
    await asyncio.gather(*(rig.publisher.publish(event, timeout=60) for event in done))
    return [event.id for event in done]


async def test_final_event_is_published_with_all_properties(rig: Rig, store: Store) -> None:
    async with listening(rig.url, rig.topology) as received, rig.projector(store), rig.worker(jobs.add, jobs.boom):
        await eventually(store.relay.state)
        added = await rig.submit("add", {"x": 1, "y": 2}, labels={"a": "b"}, correlation_id="c-1")
        failed = await rig.submit("boom", max_attempts=1)
        await eventually(lambda: len(received.messages) == 2)
        message = next(each for each in received.messages if each.headers["job"] == added)
    assert message.routing_key == "succeeded.add"
    assert (message.content_type, message.delivery_mode) == ("application/cloudevents+json", 2)
    await rig.read_to_end()
    (event,) = [event for event in rig.of(added) if event.name == "succeeded"]
    delivered = decode_delivered(message.body)
    assert delivered.event == event
    job = store.job(added)
    assert job is not None
    assert message.message_id == event.id
    assert (message.type, message.correlation_id) == ("succeeded", "c-1")
    assert message.timestamp == event.time.replace(microsecond=0)
    assert message.headers == {
        "cursor": job.cursor,
        "job": added,
        "job_type": "add",
        "state": "succeeded",
        "labels": {"a": "b"},
    }
    assert delivered.cursor == job.cursor
    assert received.of(failed) == ["failed"]


async def test_mode_all_publishes_every_event_but_submitted(rig: Rig, store: Store) -> None:
    async with (
        listening(rig.url, rig.topology) as received,
        rig.projector(store, relay="all"),
        rig.worker(jobs.ahold),
    ):
        await eventually(store.relay.state)
        jobs.gate.clear()
        job_id = await rig.submit("ahold")
        await eventually(lambda: received.of(job_id) == ["started"])
        jobs.gate.set()
        await eventually(lambda: "succeeded" in received.of(job_id))
    assert received.of(job_id) == ["started", "succeeded"]


async def test_reply_to_queue_gets_the_events_of_its_jobs_only(rig: Rig, store: Store) -> None:
    async with (
        listening(rig.url, rig.topology, "reply.me") as mine,
        listening(rig.url, rig.topology, "succeeded.#", "reply.me") as both,
        rig.projector(store),
        rig.worker(jobs.add),
    ):
        await eventually(store.relay.state)
        submitted = [
            await rig.submit("add", {"x": n, "y": 0}, reply_to=name) for n, name in enumerate(("me", "you", None, "me"))
        ]
        await eventually(lambda: len(both.messages) == 4 and len(mine.messages) == 2)
    assert {str(message.headers["job"]) for message in mine.messages} == {submitted[0], submitted[3]}
    assert len(both.messages) == 4, "a queue that is bound twice gets each event once"


async def test_values_too_long_for_amqp_are_in_the_body_only(rig: Rig, store: Store) -> None:
    """Such a property would make the broker close the connection, again and again."""
    labels = [{"n" * 300: "x"}, {"name": "x" * 200_000}]
    async with listening(rig.url, rig.topology) as received, rig.projector(store), rig.worker(jobs.add):
        await eventually(store.relay.state)
        for each in labels:
            payload = {"x": 1, "y": 2}
            job_id = await rig.submit("add", payload, labels=each, correlation_id="é" * 200, reply_to="r" * 300)
            await eventually(lambda: received.of(job_id))  # noqa: B023
    for message in received.messages:
        assert message.correlation_id is None
        assert "labels" not in message.headers
        assert decode_delivered(message.body).event.correlationid == "é" * 200


async def test_order_is_the_tapes_also_across_projectors(rig: Rig, store: Store) -> None:
    """Publishes more than one window. Repeats are allowed, but not expected here."""
    async with listening(rig.url, rig.topology, "succeeded.#") as received:
        async with rig.projector(store):
            await eventually(store.relay.state)
            first = await finished(rig, WINDOW + 50)
            await eventually(lambda: set(received.ids) == set(first), 60)
        async with rig.projector(store, owner="p2"):
            second = await finished(rig, 3)
            await eventually(lambda: set(received.ids) == {*first, *second})
        assert without_repeats(received.cursors) == sorted(set(received.cursors))
    state = store.relay.state()
    assert state is not None
    assert (state.delivered, state.refused, state.stalls, state.fault, state.behind) == (WINDOW + 53, 0, 0, None, 0.0)


async def test_published_event_can_be_read_at_once(rig: Rig, store: Store) -> None:
    unread = []
    async with listening(rig.url, rig.topology) as received, rig.projector(store), rig.worker(jobs.add):
        await eventually(store.relay.state)

        async def submit_and_wait(n: int) -> None:
            job_id = await rig.submit("add", {"x": n, "y": 0})
            await eventually(lambda: received.of(job_id))
            job = store.job(job_id)
            if job is None or not job.final:
                unread.append(job_id)

        await asyncio.gather(*(submit_and_wait(n) for n in range(40)))
    assert unread == []


async def test_full_queue_that_refuses_does_not_delay_others(rig: Rig, store: Store) -> None:
    connection = await rig.link.connection()
    full = await bound_queue(connection, rig.topology, {"x-max-length": 5, "x-overflow": "reject-publish"})
    try:
        async with listening(rig.url, rig.topology) as received, rig.projector(store):
            await eventually(store.relay.state)
            done = await finished(rig, 100)
            await eventually(lambda: len(received.messages) >= 100)
            state = await eventually(
                lambda: s if (s := store.relay.state()) and s.delivered + s.refused == 100 else None
            )
    finally:
        await delete_queue(connection, full)
    assert sorted(received.ids) == sorted(done), "a refused event is not published again"
    assert state.refused > 50
    assert state.fault is None


async def test_new_view_of_an_old_tape_publishes_no_old_events(rig: Rig, store: Store, tmp_path: Path) -> None:
    async with listening(rig.url, rig.topology, "succeeded.#") as received:
        async with rig.projector(store):
            await eventually(store.relay.state)
            old = await finished(rig, 20)
            await eventually(lambda: len(received.messages) == 20)
        fresh = Store(f"sqlite:///{tmp_path / 'fresh.db'}")
        try:
            async with rig.projector(fresh, owner="fresh"):
                await eventually(fresh.relay.state)
                new = await finished(rig, 1)
                await eventually(lambda: received.ids[-1:] == new)
        finally:
            fresh.close()
    assert sorted(received.ids) == sorted(old + new)


async def test_relay_switched_on_again_publishes_new_events_only(rig: Rig, store: Store) -> None:
    async with listening(rig.url, rig.topology, "succeeded.#") as received:
        async with rig.projector(store, relay="off"):
            await finished(rig, 5)
            await eventually(lambda: store.counts().get(("add", "succeeded")) == 5)
            await eventually(lambda: store.relay.state() is None)
        async with rig.projector(store, owner="p2"):
            await eventually(store.relay.state)
            new = await finished(rig, 1)
            await eventually(lambda: received.ids == new)


async def test_deleted_exchange_is_declared_again(rig: Rig, store: Store) -> None:
    async with rig.projector(store):
        await eventually(store.relay.state)
        await finished(rig, 1)
        await eventually(lambda: (s := store.relay.state()) is not None and s.delivered == 1)
        channel = await (await rig.link.connection()).channel()
        await channel.exchange_delete(rig.topology.results.name)
        await finished(rig, 1)
        await eventually(lambda: (s := store.relay.state()) is not None and s.delivered == 2)
        async with listening(rig.url, rig.topology) as received:
            new = await finished(rig, 1)
            await eventually(lambda: new[0] in received.ids)


async def test_tape_created_by_a_projector_that_died_is_published_from_its_start(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may write to the tape before the next projector creates the checkpoint."""
    await rig.delete_tape()

    def fails() -> bool:
        raise ViewUnavailable("it dies here")

    with monkeypatch.context() as dying:
        dying.setattr(store, "create_checkpoint", fails)
        async with rig.projector(store, ready=False):
            await eventually(partial(tape_is_there, rig), what="the tape exists")
    async with listening(rig.url, rig.topology) as received:
        early = await finished(rig, 1)
        async with rig.projector(store, owner="p2"):
            await eventually(lambda: early[0] in received.ids, what="the event from before the projector is published")


async def tape_is_there(rig: Rig) -> bool:
    return await declare.log_exists(await rig.link.connection(), rig.topology)


async def test_relay_reports_events_pruned_before_it_published_them(
    rig: Rig, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The relay was away for longer than the history is kept."""
    async with rig.projector(store):
        await eventually(store.relay.state)  # an existing tape: the relay starts at its end
        await finished(rig, 2)
        await eventually(lambda: (s := store.relay.state()) is not None and s.delivered == 2)
    assert store.take_lease("test", 60)
    assert store.relay.forget("test")
    pruned = store.retention.prune("test", datetime.now(UTC) + timedelta(days=1))
    assert pruned is not None and pruned.jobs == 2
    assert store.relay.begin("test", 1)
    store.release_lease("test")
    async with rig.projector(store, owner="p2"):
        await eventually(lambda: "not kept any more, nor published" in caplog.text)
