"""The link: it waits for a broker, notices when it is gone, and comes back."""

import asyncio
import time

import pytest
from yarl import URL

from jobtape.broker import link as link_module
from jobtape.broker.link import Connection, Link
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.urls import without_password
from tests.broker.proxy import Proxy
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_it_waits_for_a_broker_that_is_away(proxy: Proxy) -> None:
    proxy.refuse = True
    link = Link(proxy.url, name="test")
    link.start()
    await eventually(lambda: (link.trouble or "").startswith("no broker at amqp://"))
    assert not link.up
    proxy.refuse = False
    async with asyncio.timeout(10):
        connection = await link.connection()
    assert not connection.is_closed
    assert (link.up, link.trouble) == (True, None)
    await link.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_it_comes_back_after_a_cut(proxy: Proxy, far_link: Link, reset: bool) -> None:
    before = await far_link.connection()
    proxy.cut(reset=reset)
    await eventually(lambda: before.is_closed)
    async with asyncio.timeout(10):
        after = await far_link.connection()
    assert after is not before
    assert not after.is_closed


async def test_half_closed_by_the_broker(proxy: Proxy, far_link: Link) -> None:
    before = await far_link.connection()
    proxy.half_close()
    await eventually(lambda: before.is_closed)
    proxy.hold_answers = False
    async with asyncio.timeout(10):
        assert (await far_link.connection()) is not before


async def test_a_dead_peer_is_noticed_after_three_heartbeats(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the usual 10 seconds that is after 33; here with 1 second."""
    monkeypatch.setattr(link_module, "HEARTBEAT", 1)
    link = Link(proxy.url, name="test")
    link.start()
    connection = await link.connection()
    proxy.hold_answers = proxy.hold_requests = True
    began = time.monotonic()
    await eventually(lambda: connection.is_closed, 12)
    assert time.monotonic() - began < 9
    await eventually(lambda: link.trouble)
    proxy.cut()
    proxy.hold_answers = proxy.hold_requests = False
    async with asyncio.timeout(15):
        await link.connection()
    await link.close()


def test_the_usual_heartbeat_notices_in_forty_seconds() -> None:
    grace = 3  # aiormq gives up after (heartbeat + 1) times this
    assert (link_module.HEARTBEAT + 1) * grace < 40


async def test_setup_runs_on_each_connection_before_anyone_gets_it(proxy: Proxy) -> None:
    seen: list[Connection] = []

    async def setup(connection: Connection) -> None:
        seen.append(connection)
        if len(seen) == 1:
            raise JobtapeError("not this time")

    link = Link(proxy.url, name="test", setup=setup)
    link.start()
    assert await link.connection() is seen[1]
    assert seen[0].is_closed, "the one that could not be set up is not left open"
    await link.close()
    assert seen[1].is_closed


@pytest.mark.parametrize("url", ["amqp://user:secret@127.0.0.1:1/", "amqp://user:secret@localhost:1/vhost?x=secret"])
async def test_no_password_in_what_it_says(url: str, caplog: pytest.LogCaptureFixture) -> None:
    link = Link(url, name="test")
    link.start()
    await eventually(lambda: (link.trouble or "").startswith("no broker"))
    assert "secret" not in str(link.trouble)
    assert "secret" not in caplog.text
    await link.close()


async def test_a_wrong_password_is_named(broker_url: str) -> None:
    link = Link(str(URL(broker_url).with_password("wrong")), name="test")
    link.start()
    trouble = await eventually(lambda: link.trouble if "no broker" in str(link.trouble) else None)
    assert "ACCESS_REFUSED" in trouble
    assert "wrong" not in trouble
    await link.close()


async def test_what_is_no_url_is_said_and_not_silent() -> None:
    link = Link("not a url", name="test")
    link.start()
    await eventually(lambda: "not connected yet" not in str(link.trouble), 5, what="it says what is wrong")
    await link.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:p@h:1/v?a=b", "amqp://u@h:1/v"),
        ("amqp://h", "amqp://h"),
        ("nonsense p@ss", "(not a URL)"),
    ],
)
def test_without_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
