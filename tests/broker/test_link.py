"""The link waits for a broker, notices a lost connection, and connects again."""

import asyncio

import pytest
from yarl import URL

from jobtape.broker import link as link_module
from jobtape.broker.link import Connection, Link
from jobtape.schemas.errors import JobtapeError
from tests.broker.proxy import Proxy
from tests.waiting import eventually, within
from tools.processes.ports import free_port

pytestmark = pytest.mark.anyio


async def test_link_waits_for_unreachable_broker(proxy: Proxy) -> None:
    proxy.refuse = True
    link = Link(proxy.url, name="test")
    link.start()
    await eventually(lambda: (link.fault or "").startswith("no broker at amqp://"))
    assert not link.up
    proxy.refuse = False
    async with asyncio.timeout(10):
        connection = await link.connection()
    assert not connection.is_closed
    assert (link.up, link.fault) == (True, None)
    await link.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_link_reconnects_after_cut(proxy: Proxy, far_link: Link, reset: bool) -> None:
    before = await far_link.connection()
    proxy.cut(reset=reset)
    await eventually(lambda: before.is_closed)
    async with asyncio.timeout(10):
        after = await far_link.connection()
    assert after is not before
    assert not after.is_closed


async def test_link_reconnects_after_half_close(proxy: Proxy, far_link: Link) -> None:
    before = await far_link.connection()
    proxy.half_close()
    await eventually(lambda: before.is_closed)
    proxy.hold_answers = False
    async with asyncio.timeout(10):
        assert (await far_link.connection()) is not before


async def test_dead_peer_is_noticed_after_three_heartbeats(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 33 s with the default heartbeat of 10 s; this test uses 1 s."""
    monkeypatch.setattr(link_module, "HEARTBEAT", 1)
    link = Link(proxy.url, name="test")
    link.start()
    connection = await link.connection()
    proxy.hold_answers = proxy.hold_requests = True
    with within(9):
        await eventually(lambda: connection.is_closed)
    await eventually(lambda: link.fault)
    proxy.cut()
    proxy.hold_answers = proxy.hold_requests = False
    async with asyncio.timeout(15):
        await link.connection()
    await link.close()


def test_default_heartbeat_notices_within_forty_seconds() -> None:
    grace = 3  # aiormq gives up after (heartbeat + 1) times this
    assert (link_module.HEARTBEAT + 1) * grace < 40


async def test_setup_runs_before_connection_is_used(proxy: Proxy) -> None:
    seen: list[Connection] = []

    async def setup(connection: Connection) -> None:
        seen.append(connection)
        if len(seen) == 1:
            raise JobtapeError("not this time")

    link = Link(proxy.url, name="test", setup=setup)
    link.start()
    assert await link.connection() is seen[1]
    assert seen[0].is_closed, "a connection whose setup failed is closed"
    await link.close()
    assert seen[1].is_closed


@pytest.mark.parametrize("url", ["amqp://user:secret@127.0.0.1:1/", "amqp://user:secret@localhost:1/vhost?x=secret"])
async def test_log_and_fault_show_no_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    link = Link(url, name="test")
    link.start()
    await eventually(lambda: (link.fault or "").startswith("no broker"))
    assert "secret" not in str(link.fault)
    assert "secret" not in caplog.text
    await link.close()


async def test_wrong_password_is_reported(broker_url: str) -> None:
    link = Link(str(URL(broker_url).with_password("wrong")), name="test")
    link.start()
    fault = await eventually(lambda: link.fault if "refuses the login" in str(link.fault) else None)
    assert "ACCESS_REFUSED" in fault
    assert ":wrong" not in fault
    await link.close()


async def test_invalid_url_is_reported() -> None:
    link = Link("not a url", name="test")
    link.start()
    await eventually(lambda: "not connected yet" not in str(link.fault))
    await link.close()


async def test_link_can_be_closed_at_any_moment() -> None:
    """Nothing listens, so some of these moments are the very step in which connecting fails."""
    port = free_port()
    for moment in range(300):
        link = Link(f"amqp://guest:guest@127.0.0.1:{port}/", name="closing")
        link.start()
        for _ in range(moment % 40):
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await link.close()


async def test_hosts_are_tried_in_turn_and_the_lost_one_last(proxy: Proxy, broker_url: str) -> None:
    used, dead = URL(proxy.url), f"127.0.0.1:{free_port()}"
    other = URL(broker_url)
    hosts = f"{dead},{used.host}:{used.port},{other.host}:{other.port}"
    credentials, _, _ = str(used).partition("://")[2].rpartition("@")
    at = f"{credentials}@" if credentials else ""
    link = Link(f"amqp://{at}{hosts}{used.raw_path}", name="test")
    link.start()
    async with asyncio.timeout(10):
        first = await link.connection()
    assert URL(link.host_url).port == used.port, "the first host is dead, so the second one is used"
    proxy.refuse = True
    proxy.cut()
    await eventually(lambda: first.is_closed)
    with within(5):
        async with asyncio.timeout(20):
            await link.connection()
    assert URL(link.host_url).port == other.port
    assert link.url.count(",") == 2, "a link that is made of this one knows all hosts"
    await link.close()
