"""Messages on the dead queue: work that the broker gave up, and messages that are no work. On both databases."""

from collections.abc import Callable
from datetime import UTC, datetime

import aio_pika
import pytest

from jobtape.broker.publisher import publish_dead_letter
from jobtape.consumer.projector.maintenance.dead_letters import decide
from jobtape.schemas.events import JobEvent, Placed, Started, StartedData, encode
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job, JobState, replace
from jobtape.schemas.topology import Topology
from jobtape.view.records import dead_messages as dead
from jobtape.view.store import DeadMessage, Store
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def give_up(rig: Rig, *events: JobEvent) -> None:
    """Publish ``events`` as the broker does with work that it gives up: with the fixed key and its header."""
    channel = await (await rig.link.connection()).channel()
    async with channel:
        exchange = await channel.get_exchange(rig.topology.dead.name, ensure=False)
        for event in events:
            message = aio_pika.Message(encode(event), headers={"x-first-death-reason": "delivery_limit"})
            await exchange.publish(message, "given-up")


def state_is(store: Store, job_id: str, state: JobState) -> Callable[[], Job | None]:
    def condition() -> Job | None:
        job = store.job(job_id)
        return job if job is not None and job.state is state else None

    return condition


async def placed(rig: Rig, job_id: str, n: int) -> Placed:
    """Wait for the ``n``-th placement of the job."""

    def found() -> Placed | None:
        return next((each for each in rig.of(job_id) if isinstance(each, Placed) and each.data.n == n), None)

    return await eventually(found)


async def dead_queue_is_empty(rig: Rig) -> None:
    """Wait until the dead queue is empty. Call it without a projector, whose unacknowledged messages do not count."""
    await eventually(rig.nothing_on(rig.topology.dead_queue.name))


async def test_given_up_work_that_never_started_is_placed_again(rig: Rig, store: Store) -> None:
    event = order_event(rig.topology, "add", {"x": 1, "y": 2})
    async with rig.projector(store):
        await rig.publisher.publish(event)  # without work, as if the broker had given it up
        await give_up(rig, event)
        async with rig.worker(jobs.add):
            await eventually(state_is(store, event.subject, JobState.SUCCEEDED))
    data = (await placed(rig, event.subject, 2)).data
    assert (data.why, data.attempt) == ("given_up", 1)
    await dead_queue_is_empty(rig)


async def test_job_fails_when_its_work_was_given_up_four_times(rig: Rig, store: Store) -> None:
    event: JobEvent = order_event(rig.topology, "add", {"x": 1, "y": 2})
    async with rig.projector(store):
        await rig.publisher.publish(event)
        for n in (2, 3, 4):
            await give_up(rig, event, event)
            event = await placed(rig, event.subject, n)
        await give_up(rig, event)
        job = await eventually(state_is(store, event.subject, JobState.FAILED))
        await dead_queue_is_empty(rig)
    assert (job.reason, job.placed) == ("crash_loop", 4)
    await rig.read_to_end()
    assert rig.names(event.subject) == ["submitted", *["placed"] * 3, "failed"]


def test_given_up_work_of_a_job_that_waits_for_follow_ups_is_not_placed_again(topology: Topology) -> None:
    event = order_event(topology, "add", {"x": 1, "y": 2})
    waits = replace(evolve(None, event, 1), state=JobState.HELD, follow_ups={"nodes": {}})
    assert decide(event, waits, topology.source, datetime.now(UTC), fence=1) is None


async def test_job_that_was_running_when_given_up_fails(rig: Rig, store: Store) -> None:
    event = order_event(rig.topology, "add")
    data = StartedData(job_type="add", run=1, attempt=1, execution="e", worker="w")
    started = Started(
        id=f"{event.subject}/1/1/started/e", source=event.source, subject=event.subject, time=event.time, data=data
    )
    async with rig.projector(store):
        await rig.publisher.publish(event)
        await rig.publisher.publish(started)
        await give_up(rig, event)
        job = await eventually(state_is(store, event.subject, JobState.FAILED))
        assert job.reason == "crash_loop"
        await give_up(rig, event)
        await dead_queue_is_empty(rig)
    await rig.read_to_end()
    assert rig.names(event.subject) == ["submitted", "started", "failed"], "the run that has ended stays as it is"
    assert store.dead_messages.count() == 0


async def test_messages_that_are_no_work_become_dead_messages(rig: Rig, store: Store, topology: Topology) -> None:
    stranger = order_event(topology, "add")
    async with rig.projector(store), rig.worker(jobs.add):
        await rig.put(b"\x00\xffnonsense")
        await publish_dead_letter(rig.link, topology, b"{}", "because\x00of this")
        await give_up(rig, stranger)
        await eventually(lambda: store.dead_messages.count() == 3)
    found = {message.body: message for message in store.dead_messages.page()}
    assert "not JSON" in found[b"\x00\xffnonsense"].reason
    assert found[b"{}"].reason == "because\\x00of this"
    assert "does not know its job" in found[encode(stranger)].reason
    one = found[b"{}"]
    assert one.id is not None
    assert store.dead_messages.get(one.id) == one
    assert [message.id for message in store.dead_messages.page(before=3, limit=1)] == [2]
    await dead_queue_is_empty(rig)


async def test_dead_message_is_kept_once_when_the_database_fails(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write fails before, the second one after the message is written, so it is delivered again."""
    failures = iter(["before", "after"])
    real = dead._add

    def add(*arguments: object) -> None:
        when = next(failures, None)
        if when == "before":
            raise OSError(when)
        real(*arguments)  # type: ignore[arg-type]
        if when == "after":
            raise OSError(when)

    monkeypatch.setattr(dead, "_add", add)
    async with rig.projector(store):
        await publish_dead_letter(rig.link, rig.topology, b"kept", "no job")
        await eventually(lambda: store.dead_messages.count() == 1)
    await dead_queue_is_empty(rig)


def test_oldest_dead_messages_are_removed_beyond_the_limits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def message(n: int, size: int = 10) -> DeadMessage:
        return DeadMessage(f"m{n}", datetime(2030, 1, 1, tzinfo=UTC), "no job", b"x" * size, size)

    monkeypatch.setattr(dead, "KEPT", 3)
    monkeypatch.setattr(dead, "KEPT_BYTES", 100)
    store.create_checkpoint()
    assert store.take_lease("me", 60)
    assert store.dead_messages.add("me", [message(n) for n in range(5)])
    assert store.dead_messages.add("me", [message(4)])
    assert [each.message_id for each in store.dead_messages.page()] == ["m4", "m3", "m2"]
    store.dead_messages.add("me", [message(5, 85)])
    assert [each.message_id for each in store.dead_messages.page()] == ["m5", "m4"]
    store.dead_messages.add("me", [message(6, 200)])
    assert [each.message_id for each in store.dead_messages.page()] == ["m6"], "the newest stays, however large"
    assert not store.dead_messages.add("another", [message(7)])
