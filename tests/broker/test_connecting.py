"""Why there is no connection: each reason as such, with what to change."""

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

import aio_pika
import pytest
from yarl import URL

from jobtape.broker.connecting import vhost_of, why_not_connected
from jobtape.broker.link import BROKER_ERRORS, Link
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

pytestmark = pytest.mark.anyio


async def reason(url: str) -> str:
    """What is said of ``url``, to which there is no connection."""
    with pytest.raises(BROKER_ERRORS) as raised:
        async with asyncio.timeout(10):
            await aio_pika.connect(url)
    return why_not_connected(url, raised.value)


@pytest.mark.parametrize("vhost", ["nope", "a b/ü", "it's"])
async def test_a_vhost_that_does_not_exist(broker_url: str, vhost: str) -> None:
    url = str(URL(broker_url).with_path("/")) + quote(vhost, safe="")
    said = await reason(url)
    assert said.startswith(f"the vhost {vhost!r} does not exist on the broker at amqp://")
    assert f"{URL(broker_url).host}:{URL(broker_url).port}" in said
    assert "rabbitmqctl add_vhost" in said
    assert "RABBITMQ_URL" in said
    assert str(URL(broker_url).password) not in said
    assert vhost_of(url) == vhost


async def test_the_link_says_so(broker_url: str) -> None:
    """And with it the log of each part, and the health of an API."""
    link = Link(f"{broker_url}nope", name="test")
    link.start()
    await eventually(lambda: "the vhost 'nope' does not exist" in str(link.trouble))
    await link.close()


@pytest.fixture(scope="module")
def shut(node: PrivateNode) -> Iterator[PrivateNode]:
    """With a vhost that its user may not use."""
    node.ctl("add_vhost", "shut")
    yield node
    node.ctl("delete_vhost", "shut")


async def test_a_vhost_that_the_user_may_not_use(shut: PrivateNode) -> None:
    said = await reason(f"{shut.url}shut")
    assert f"the user {URL(shut.url).user!r} may not use the vhost 'shut'" in said
    assert "rabbitmqctl set_permissions -p shut" in said


async def test_a_wrong_name_or_password(broker_url: str) -> None:
    for url in (URL(broker_url).with_password("wrong"), URL(broker_url).with_user("nobody")):
        said = await reason(str(url))
        assert f"it does not know {url.user!r} with this password" in said
        assert "ACCESS_REFUSED" in said
        assert str(url.password) not in said


async def test_tls_where_there_is_none(broker_url: str) -> None:
    said = await reason(str(URL(broker_url).with_scheme("amqps")))
    assert "that speaks TLS" in said
    assert "write amqp:// in RABBITMQ_URL" in said


async def test_a_host_that_is_not_known(broker_url: str) -> None:
    assert "the name no-such-host.invalid is not known" in await reason(
        str(URL(broker_url).with_host("no-such-host.invalid"))
    )


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b""])
async def test_something_else_listens_there(answer: bytes) -> None:
    """A web server, a port for TLS, and what hangs up at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert "amqps:// (5671 as a rule)" in await reason(f"amqp://guest:guest@127.0.0.1:{port}/")
