"""Each reason for a missing connection has its own text, which says what to change."""

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

import aio_pika
import pytest
from yarl import URL

from jobtape.broker.connection_errors import describe_connection_error, vhost_of
from jobtape.broker.link import BROKER_ERRORS, Link
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

pytestmark = pytest.mark.anyio


async def reason(url: str) -> str:
    """Connect to ``url``, which fails, and describe the error."""
    with pytest.raises(BROKER_ERRORS) as raised:
        async with asyncio.timeout(10):
            await aio_pika.connect(url)
    return describe_connection_error(url, raised.value)


@pytest.mark.parametrize("vhost", ["nope", "a b/ü", "it's"])
async def test_missing_vhost(broker_url: str, vhost: str) -> None:
    url = str(URL(broker_url).with_path("/")) + quote(vhost, safe="")
    message = await reason(url)
    assert message.startswith(f"the vhost {vhost!r} does not exist on the broker at amqp://")
    assert f"{URL(broker_url).host}:{URL(broker_url).port}" in message
    assert "rabbitmqctl add_vhost" in message
    assert "RABBITMQ_URL" in message
    assert f":{URL(broker_url).password}@" not in message
    assert vhost_of(url) == vhost


async def test_link_shows_the_description(broker_url: str) -> None:
    link = Link(f"{broker_url}nope", name="test")
    link.start()
    await eventually(lambda: "the vhost 'nope' does not exist" in str(link.fault))
    await link.close()


@pytest.fixture(scope="module")
def closed_vhost(node: PrivateNode) -> Iterator[PrivateNode]:
    """A broker with a vhost that its user may not use."""
    node.ctl("add_vhost", "shut")
    yield node
    node.ctl("delete_vhost", "shut")


async def test_vhost_without_permission(closed_vhost: PrivateNode) -> None:
    message = await reason(f"{closed_vhost.url}shut")
    assert f"the user {URL(closed_vhost.url).user!r} may not use the vhost 'shut'" in message
    assert "rabbitmqctl set_permissions -p shut" in message


async def test_wrong_user_or_password(broker_url: str) -> None:
    for url in (URL(broker_url).with_password("wrong"), URL(broker_url).with_user("nobody")):
        message = await reason(str(url))
        assert f"user {url.user!r} or its password is wrong" in message
        assert "ACCESS_REFUSED" in message
        assert f":{url.password}" not in message


async def test_tls_to_plain_port(broker_url: str) -> None:
    message = await reason(str(URL(broker_url).with_scheme("amqps")))
    assert "that speaks TLS" in message
    assert "write amqp:// in RABBITMQ_URL" in message


async def test_unknown_host(broker_url: str) -> None:
    assert "the host name no-such-host.invalid cannot be resolved" in await reason(
        str(URL(broker_url).with_host("no-such-host.invalid"))
    )


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b""])
async def test_port_of_another_protocol(answer: bytes) -> None:
    """A web server, a TLS port, and a server that closes the connection at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert "the TLS port (usually 5671) needs amqps://" in await reason(f"amqp://guest:guest@127.0.0.1:{port}/")
