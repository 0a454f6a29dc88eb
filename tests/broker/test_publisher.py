"""Publishing: one publish writes tape and work queue, or raises because that is not certain."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import aio_pika
import pytest

from jobtape.broker import declare
from jobtape.broker.link import Link
from jobtape.broker.publisher import REASON_HEADER, Publisher, publish_dead_letter
from jobtape.broker.stream_reader import StreamReader
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing
from jobtape.schemas.events import JobEvent, Submitted, decode
from jobtape.schemas.fold import fold
from jobtape.schemas.topology import Topology
from tests.broker.proxy import Proxy
from tests.consumer.installation import order_event
from tests.waiting import eventually, within

pytestmark = pytest.mark.anyio
CC = ["run.default"]


async def tape(link: Link, topology: Topology, n: int) -> list[JobEvent]:
    """Read the tape, which has at least ``n`` messages."""
    found: list[JobEvent] = []
    async with StreamReader(await link.connection(), topology.log.name, "first") as reader:
        while batch := await reader.read(1000, 5.0 if len(found) < n else 0.3):
            found += [decode(message.body) for message in batch]
    return found


def waiting(link: Link, topology: Topology, n: int) -> Callable[[], Awaitable[bool]]:
    """A condition: ``n`` messages are on the work queue."""

    async def condition() -> bool:
        found = await declare.depth(await link.connection(), topology.work_queue("default").name)
        return found is not None and found.messages == n

    return condition


async def test_publish_writes_tape_and_work_queue(link: Link, publisher: Publisher, topology: Topology) -> None:
    events = [order_event(topology, "add", {"n": n}) for n in range(500)]
    await asyncio.gather(*(publisher.publish(event, CC) for event in events))
    written = await tape(link, topology, 500)
    assert all(isinstance(event, Submitted) for event in written)
    assert {event.subject for event in written} == {event.subject for event in events}
    assert len(written) == 500
    await eventually(waiting(link, topology, 500))


async def test_messages_are_persistent_with_unique_ids(link: Link, publisher: Publisher, topology: Topology) -> None:
    event = order_event(topology, "add")
    await publisher.publish(event, CC)
    await publisher.publish(event, CC)
    channel = await (await link.connection()).channel()
    queue = await channel.get_queue(topology.work_queue("default").name)
    first, second = await queue.get(no_ack=True), await queue.get(no_ack=True)
    assert first.body == second.body
    assert first.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
    assert first.content_type == "application/cloudevents+json"
    assert first.message_id != second.message_id


async def test_publish_without_tape_raises_tape_missing(link: Link, publisher: Publisher, topology: Topology) -> None:
    channel = await (await link.connection()).channel()
    await channel.queue_delete(topology.log.name)
    for _ in range(3):
        with pytest.raises(TapeMissing, match=r"nothing was recorded.*jobtape init"):
            await publisher.publish(order_event(topology, "add"))
    await declare.create_log(await link.connection(), topology)
    await publisher.publish(order_event(topology, "add"))


async def test_work_queue_alone_confirms_without_tape(link: Link, publisher: Publisher, topology: Topology) -> None:
    """For AMQP this is a success, so the submitter itself must check that the tape exists."""
    channel = await (await link.connection()).channel()
    await channel.queue_delete(topology.log.name)
    await publisher.publish(order_event(topology, "add"), CC)
    await eventually(waiting(link, topology, 1))


async def test_missing_confirm_times_out(far_link: Link, topology: Topology, proxy: Proxy) -> None:
    far = Publisher(far_link, topology, timeout=0.5)
    await far.publish(order_event(topology, "add"))
    proxy.hold_answers = True
    with within(2), pytest.raises(BrokerUnavailable, match=r"not confirmed within 0\.5 s"):
        await far.publish(order_event(topology, "add"))


async def test_missing_connection_times_out(topology: Topology) -> None:
    link = Link("amqp://user:secret@127.0.0.1:1/", name="test")
    link.start()
    with pytest.raises(BrokerUnavailable, match=r"no broker at amqp://user@127\.0") as raised:
        await Publisher(link, topology, timeout=0.5).publish(order_event(topology, "add"))
    assert "secret" not in str(raised.value)
    await link.close()


@pytest.mark.parametrize("how", ["cut", "reset", "half-close"])
@pytest.mark.parametrize("lost", ["request", "confirm"])
async def test_publish_is_repeated_after_connection_loss(
    link: Link, far_link: Link, proxy: Proxy, topology: Topology, how: str, lost: str
) -> None:
    """The publisher repeats the same event. One or two copies on the tape are one job."""
    far = Publisher(far_link, topology)
    await far.publish(order_event(topology, "add"), CC)
    event = order_event(topology, "add")
    proxy.hold_requests, proxy.hold_answers = lost == "request", lost == "confirm"
    publishing = asyncio.create_task(far.publish(event, CC))
    if lost == "confirm":
        await eventually(waiting(link, topology, 2))
    else:
        await eventually(lambda: proxy.held > 0)
    if how == "half-close":
        proxy.half_close()
        proxy.hold_requests = False  # the way to the broker is still open: what was held gets through
        await eventually(lambda: not far_link.up)
    else:
        proxy.cut(reset=how == "reset")
    proxy.hold_requests = proxy.hold_answers = False
    async with asyncio.timeout(15):
        await publishing
    copies = [each for each in await tape(link, topology, 2) if each.subject == event.subject]
    assert len(copies) == (2 if lost == "confirm" or how == "half-close" else 1)
    assert {copy.id for copy in copies} == {event.id}
    assert len(fold((each, n) for n, each in enumerate(copies))) == 1


async def test_caller_repeats_unconfirmed_event_safely(
    link: Link, far_link: Link, proxy: Proxy, topology: Topology
) -> None:
    far = Publisher(far_link, topology, timeout=0.5)
    await far.publish(order_event(topology, "add"))
    proxy.hold_answers = True
    event = order_event(topology, "add")
    with pytest.raises(BrokerUnavailable):
        await far.publish(event, CC)
    proxy.hold_answers = False
    await far.publish(event, CC, timeout=10)
    copies = [each for each in await tape(link, topology, 3) if each.subject == event.subject]
    assert len(copies) == 2
    job = fold((each, n) for n, each in enumerate(copies))[event.subject]
    assert job.cursor == 0, "the second changed nothing"


async def test_every_publish_ends_when_connection_is_cut_under_load(
    link: Link, far_link: Link, proxy: Proxy, topology: Topology
) -> None:
    far = Publisher(far_link, topology, timeout=20)
    events = [order_event(topology, "add", {"pad": "x" * 2000}) for _ in range(2000)]
    tasks = [asyncio.create_task(far.publish(event)) for event in events]
    for share in (200, 800, 1400):
        await eventually(partial(_ended, tasks, share), what=f"{share} have ended")
        proxy.cut(reset=share == 800)
    async with asyncio.timeout(30):
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [end for end in ends if end is not None]
    written = {event.subject for event in await tape(link, topology, 2000)}
    assert written == {event.subject for event in events}


def _ended(tasks: list["asyncio.Task[None]"], share: int) -> bool:
    return sum(task.done() for task in tasks) >= share


async def test_cancelled_publish_raises_cancelled_error(far_link: Link, proxy: Proxy, topology: Topology) -> None:
    far = Publisher(far_link, topology)
    await far.publish(order_event(topology, "add"))
    proxy.hold_answers = True
    task = asyncio.create_task(far.publish(order_event(topology, "add")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    proxy.hold_answers = False
    await far.publish(order_event(topology, "add"), timeout=10)


@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"x" * 1_000_000])
async def test_dead_letter_has_unchanged_body_and_reason(link: Link, topology: Topology, body: bytes) -> None:
    await publish_dead_letter(link, topology, body, "because " * 200)
    channel = await (await link.connection()).channel()
    queue = await channel.get_queue(topology.dead_queue.name)
    message = await eventually(lambda: queue.get(no_ack=True, fail=False))
    assert message.body == body
    assert message.headers[REASON_HEADER] == ("because " * 200)[:500]
    assert not {"CC", "x-death"} & set(message.headers)


async def test_dead_letter_reaches_neither_tape_nor_work_queue(link: Link, topology: Topology) -> None:
    await publish_dead_letter(link, topology, b"?", "no job")
    for queue in (topology.log.name, topology.work_queue("default").name):
        found = await declare.depth(await link.connection(), queue)
        assert found is not None
        assert found.messages == 0
