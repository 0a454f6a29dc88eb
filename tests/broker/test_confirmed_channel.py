"""Publishing in bulk over one channel: each message has an outcome of its own."""

import asyncio
from collections.abc import AsyncIterator

import aiormq.exceptions
import pytest
from aiormq.abc import AbstractChannel

from jobtape.broker import confirmed_channel
from jobtape.broker.channels import channel, message_properties
from jobtape.broker.confirmed_channel import ConfirmedChannel, publish_all
from jobtape.broker.link import BROKER_ERRORS, Link
from jobtape.schemas.topology import Topology
from tests.broker.proxy import Proxy
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


def test_aiormq_has_the_inner_parts_that_bulk_publishing_replaces() -> None:
    """A new version of aiormq without them makes publishing slow, not wrong."""
    assert confirmed_channel.IN_BULK


@pytest.fixture(params=["in bulk", "one by one"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirmed_channel, "IN_BULK", request.param == "in bulk")


@pytest.fixture
async def queue(link: Link, topology: Topology) -> AsyncIterator[str]:
    """A queue that takes five messages and refuses more."""
    name = f"{topology.namespace}.five"
    async with channel(await link.connection()) as opened:
        await opened.queue_declare(name, exclusive=True, arguments={"x-max-length": 5, "x-overflow": "reject-publish"})
        yield name


async def bodies(opened: AbstractChannel, queue: str) -> list[bytes]:
    """Take all messages from ``queue``."""
    taken = []
    while (message := await opened.basic_get(queue, no_ack=True)).header.properties.delivery_mode is not None:
        taken.append(message.body)
    return taken


@pytest.mark.usefixtures("_way")
async def test_outcome_of_each_message_is_its_own(link: Link, queue: str) -> None:
    publishing = ConfirmedChannel(link, "", renew=True)
    keys = [queue, "nowhere", queue, "k" * 256, queue, "nowhere", queue, queue, queue]
    sent = [publishing.publish(b"%d" % n, key, message_properties(), mandatory=True) for n, key in enumerate(keys)]
    outcomes = await publish_all(sent, 10)
    invalid = type(outcomes[3])
    assert issubclass(invalid, TypeError | ValueError)
    returned, refused = aiormq.exceptions.PublishError, aiormq.exceptions.DeliveryError
    expected = [type(None), returned, type(None), invalid, type(None), returned, type(None), type(None), refused]
    assert [type(outcome) for outcome in outcomes] == expected
    async with channel(await link.connection()) as opened:
        assert await bodies(opened, queue) == [b"0", b"2", b"4", b"6", b"7"]
    await publishing.publish(b"9", queue, message_properties(), mandatory=True)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("size", [0, 1, 131_063, 131_064, 131_065, 400_000])
async def test_body_of_any_size_arrives_whole(link: Link, queue: str, size: int) -> None:
    """RabbitMQ's frames have at most 131,072 bytes, 8 of them around the body."""
    body = bytes(n % 251 for n in range(size))
    publishing = ConfirmedChannel(link, "")
    await asyncio.gather(
        publishing.publish(body, queue, message_properties(), mandatory=True),
        publishing.publish(b"behind", queue, message_properties(), mandatory=True),
    )
    async with channel(await link.connection()) as opened:
        assert await bodies(opened, queue) == [body, b"behind"]


@pytest.mark.usefixtures("_way")
async def test_messages_arrive_in_the_order_of_the_calls(link: Link, topology: Topology) -> None:
    publishing = ConfirmedChannel(link, "")
    async with channel(await link.connection()) as opened:
        name = (await opened.queue_declare(exclusive=True)).queue or ""
        sent = []
        for n in range(3000):
            sent.append(publishing.publish(b"%d" % n, name, message_properties(), mandatory=True))
            if n % 7 == 0:
                await asyncio.sleep(0)
        assert await publish_all(sent, 10) == [None] * 3000
        assert await bodies(opened, name) == [b"%d" % n for n in range(3000)]


async def test_publish_cancelled_in_the_same_turn_is_not_sent(link: Link, queue: str) -> None:
    publishing = ConfirmedChannel(link, "")
    first = publishing.publish(b"first", queue, message_properties(), mandatory=True)
    publishing.publish(b"second", queue, message_properties(), mandatory=True).cancel()
    await first
    async with channel(await link.connection()) as opened:
        assert await bodies(opened, queue) == [b"first"]


async def test_unconfirmed_messages_fail_when_the_connection_is_cut(far_link: Link, proxy: Proxy, queue: str) -> None:
    publishing = ConfirmedChannel(far_link, "")
    await publishing.publish(b"0", queue, message_properties(), mandatory=True)
    proxy.hold_answers = proxy.hold_requests = True
    sent = [publishing.publish(bytes(100_000), queue, message_properties(), mandatory=False) for _ in range(100)]
    await asyncio.sleep(0)
    proxy.cut()
    outcomes = await publish_all(sent, 10)
    assert all(isinstance(outcome, BROKER_ERRORS) for outcome in outcomes)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("limit", ["MAX_UNCONFIRMED", "MAX_UNCONFIRMED_BYTES"])
async def test_messages_are_held_back_while_too_much_is_unconfirmed(
    far_link: Link, proxy: Proxy, topology: Topology, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(confirmed_channel, limit, 10)
    publishing = ConfirmedChannel(far_link, "")
    async with channel(await far_link.connection()) as opened:
        name = (await opened.queue_declare(exclusive=True)).queue or ""
        await publishing.publish(b"first", name, message_properties(), mandatory=True)
        proxy.hold_answers = True
        sent = [publishing.publish(b"x", name, message_properties(), mandatory=True) for _ in range(30)]
        await asyncio.sleep(0)
        for waiting in sent:  # as an alarm lasts longer than the deadline of a publish
            waiting.cancel()
        late = [publishing.publish(b"%d" % n, name, message_properties(), mandatory=True) for n in range(30)]
        await asyncio.sleep(0)
        proxy.hold_answers = False
        assert await publish_all(late, 10) == [None] * 30
        assert await bodies(opened, name) == [b"first", *[b"x"] * 10, *(b"%d" % n for n in range(30))]


async def test_held_messages_that_nobody_waits_for_take_no_memory(
    far_link: Link, proxy: Proxy, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmed_channel, "MAX_UNCONFIRMED", 1)
    monkeypatch.setattr(confirmed_channel, "FIRST_SWEEP", 100)
    publishing = ConfirmedChannel(far_link, "")
    await publishing.publish(b"0", queue, message_properties(), mandatory=True)
    proxy.hold_answers = True
    written = publishing.publish(b"1", queue, message_properties(), mandatory=True)
    await asyncio.sleep(0)
    for _ in range(1000):
        publishing.publish(b"2", queue, message_properties(), mandatory=True).cancel()
    assert len(publishing._gathered) <= 1000 // 2
    proxy.hold_answers = False
    await written


async def test_held_messages_are_published_over_the_next_connection(
    far_link: Link, proxy: Proxy, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmed_channel, "MAX_UNCONFIRMED", 1)
    publishing = ConfirmedChannel(far_link, "")
    await publishing.publish(b"0", "", message_properties(), mandatory=False)
    proxy.hold_answers = True
    written, held = (publishing.publish(b"%d" % n, "", message_properties(), mandatory=False) for n in (1, 2))
    await asyncio.sleep(0)
    proxy.hold_answers = False
    proxy.cut()
    outcomes = await publish_all([written, held], 10)
    assert isinstance(outcomes[0], BROKER_ERRORS)
    assert outcomes[1] is None


async def test_opening_a_channel_ends_when_nobody_waits(queue: str) -> None:
    before = asyncio.all_tasks()
    nowhere = Link("amqp://127.0.0.1:1/", name="nowhere")
    waiting = ConfirmedChannel(nowhere, "").publish(b"", queue, message_properties(), mandatory=False)
    await asyncio.sleep(0)
    waiting.cancel()
    await eventually(lambda: asyncio.all_tasks() == before)


async def test_channel_that_is_renewed_stays_open_for_its_unconfirmed_messages(
    far_link: Link, proxy: Proxy, queue: str
) -> None:
    publishing = ConfirmedChannel(far_link, "", renew=True)
    await publishing.publish(b"0", queue, message_properties(), mandatory=True)
    proxy.hold_answers = True
    unconfirmed = publishing.publish(b"1", queue, message_properties(), mandatory=True)
    await asyncio.sleep(0)
    assert publishing._channel is not None
    closing = asyncio.create_task(publishing._channel.close_when_confirmed())
    for _ in range(10):
        await asyncio.sleep(0)
    assert publishing._channel.is_open
    proxy.hold_answers = False
    assert await publish_all([unconfirmed], 10) == [None]
    await closing
    assert not publishing._channel.is_open
