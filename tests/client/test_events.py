"""Tests that events arrive once and in order over a broken network, and what ends the iteration."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from jobtape import Client, HistoryGone, SyncClient
from jobtape.client import Invalid, NoAnswer, NotFound
from jobtape.client.http.connection import ApiConnection
from jobtape.client.http.stream import EventReader
from jobtape.schemas.cursor import cursor_of
from jobtape.view.store import Gap
from tests.broker.proxy import Proxy
from tests.producer.conftest import live_sqlite, view
from tests.producer.live_api import LiveApi
from tests.view.samples import commit, folded, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

__all__ = ["live_sqlite", "view"]


@pytest.fixture
async def network(live_sqlite: LiveApi) -> AsyncIterator[Proxy]:
    """A proxy before an API on a view that the test writes to."""
    async with Proxy(live_sqlite.url) as proxy:
        yield proxy


@pytest.fixture
async def client(network: Proxy) -> AsyncIterator[Client]:
    async with Client(network.url) as opened:
        yield opened


async def test_events_from_now_first_and_cursor(client: Client, live_sqlite: LiveApi) -> None:
    old, new = submitted(0), submitted(1)
    record(live_sqlite.store, old, new)
    async with aclosing(client.events(since="first")) as received:
        assert [(await anext(received)).event for _ in range(2)] == [old, new]
    async with aclosing(client.events(since=cursor_of(1, 0))) as received:
        assert (await anext(received)).event == new, "the event after the cursor"
    async with aclosing(client.events()) as received:
        first = asyncio.ensure_future(anext(received))
        later = [submitted(n) for n in range(2, 1000)]

        def record_until_received() -> bool:
            record(live_sqlite.store, later.pop(0))
            return first.done()

        # The test does not know when the client begins to listen, so it records events until one arrives.
        await eventually(record_until_received, what="an event arrives")
        assert first.result().id not in (old.id, new.id)


async def test_events_match_filters(client: Client, live_sqlite: LiveApi) -> None:
    mail = submitted(1, type="mail.send", labels={"customer": "42"}, correlation_id="c")
    add = submitted(2)
    record(live_sqlite.store, mail, add, succeeded(mail), succeeded(add))
    for filters, expected in (
        ({"types": "mail.*"}, [mail.id, succeeded(mail).id]),
        ({"events": "succeeded"}, [succeeded(mail).id, succeeded(add).id]),
        ({"events": ["succeeded"], "labels": {"customer": "42"}, "correlation_id": "c"}, [succeeded(mail).id]),
        ({"job": add.subject}, [add.id, succeeded(add).id]),
    ):
        async with aclosing(client.events(since="first", **filters)) as received:
            assert [(await anext(received)).id for _ in expected] == expected


async def test_events_arrive_once_across_lost_connections(client: Client, network: Proxy, live_sqlite: LiveApi) -> None:
    chance = random.Random(7)
    orders = [submitted(n) for n in range(160)]
    delivered: list[str] = []

    async def listen() -> None:
        async with aclosing(client.events(since="first")) as received:
            async for event in received:
                delivered.append(event.id)
                if event.id == orders[-1].id:
                    return

    async def wait_delivered(count: int) -> None:
        await eventually(lambda: len(delivered) >= count, what=f"{count} were delivered")

    async def cut() -> None:
        for n in range(15):
            await eventually(lambda: network.connections and live_sqlite.listeners, what="the client is connected")
            record(live_sqlite.store, *orders[10 * n : 10 * n + 10])
            await wait_delivered(10 * n + chance.randint(0, 10))
            network.cut(reset=n % 2 == 0)
        record(live_sqlite.store, *orders[150:])

    async with asyncio.timeout(60):
        await asyncio.gather(listen(), cut())
    assert delivered == [order.id for order in orders]
    assert network.seen > 15


async def test_removed_history_raises_history_gone(client: Client, live_sqlite: LiveApi) -> None:
    record(live_sqlite.store, submitted(1), submitted(2))
    assert live_sqlite.store.report_gap("me", Gap("tape-replaced", "test"))
    live_sqlite.store.accept_gap()
    commit(live_sqlite.store, folded([submitted(3)], first=0, epoch=2))
    horizon = live_sqlite.store.committed.reach().horizon
    with pytest.raises(HistoryGone) as below:
        await anext(client.events(since=cursor_of(1, 0)))
    assert (below.value.horizon, below.value.head, below.value.cursor) == (horizon, cursor_of(2, 0), horizon)
    assert (await anext(client.events(since=horizon))).event == submitted(3)
    with pytest.raises(HistoryGone) as beyond:
        await anext(client.events(since=cursor_of(7, 0)))
    assert beyond.value.cursor == cursor_of(2, 0)


async def test_keep_alives_move_the_position(network: Proxy, live_sqlite: LiveApi) -> None:
    connection = ApiConnection(network.url)
    reader = EventReader(connection, [("event", "failed")], None, outage=5)
    async with aclosing(reader.events()) as received:
        waiting = asyncio.ensure_future(anext(received))
        await eventually(lambda: live_sqlite.listeners, what="the client listens")
        record(live_sqlite.store, submitted(1), submitted(2))
        await eventually(lambda: reader.position == cursor_of(1, 1), what="the position moves without matching events")
        waiting.cancel()
        await asyncio.wait([waiting])
    await connection.close()


async def test_events_raise_after_outage(live_sqlite: LiveApi, network: Proxy) -> None:
    async with Client(network.url, patience=0.2, outage=0.5) as client:
        with pytest.raises(Invalid, match="there is no event 'done'"):
            await anext(client.events(events="done"))
        async with aclosing(client.events()) as received:
            waiting = asyncio.ensure_future(anext(received))
            await eventually(lambda: live_sqlite.listeners, what="the client listens")
            network.refuse = True
            network.cut(reset=True)
            with pytest.raises(NoAnswer):
                await waiting
    async with Client(f"{network.url}/elsewhere", patience=0.2) as lost:
        network.refuse = False
        with pytest.raises(NotFound):
            await anext(lost.events())


async def test_events_of_sync_client(network: Proxy, live_sqlite: LiveApi) -> None:
    record(live_sqlite.store, *(submitted(n) for n in range(3)))

    def use() -> list[str]:
        with SyncClient(network.url) as client:
            found = []
            for received in client.events(since="first"):
                found.append(received.id)
                if len(found) == 3:
                    break
            return found

    assert await asyncio.to_thread(use) == [submitted(n).id for n in range(3)]
    await live_sqlite.wait_idle()
