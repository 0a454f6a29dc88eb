"""Tests of a private node: it listens on loopback only, keeps its data, and ends with the process that started it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest

from tests.cli.programs import until
from tools.brokers.amqp import UnreachableError, probe
from tools.brokers.node import NodeError, PrivateNode
from tools.processes.locks import FolderLock
from tools.processes.ports import free_port, is_free

START_AND_WAIT = """
import pathlib, sys
from tools.brokers.node import PrivateNode

node = PrivateNode(pathlib.Path(sys.argv[1]))
node.start()
print(node.pid, flush=True)
sys.stdin.read()
"""
# Erlang: the addresses of all sockets that listen, which are the bound ones without a peer.
LISTENING = (
    "lists:usort([Address || Port <- erlang:ports(), {ok, {Address, _}} <- [inet:sockname(Port)],"
    " element(1, inet:peername(Port)) =/= ok])."
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNode]:
    """One node for these tests, in a folder with a space in its name."""
    started = PrivateNode(tmp_path_factory.mktemp("a node"), ["heartbeat = 17"])
    started.start()
    yield started
    started.stop()


async def publish(url: str, body: bytes) -> None:
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        queue = await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key=queue.name)


async def fetch(url: str) -> bytes:
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue("kept")
        async with asyncio.timeout(20), queue.iterator(no_ack=True) as messages:
            return (await anext(messages)).body


def test_node_answers_with_its_version(node: PrivateNode) -> None:
    assert probe(node.url).version == node.version
    assert node.name.startswith("jobtape-")


def test_node_listens_on_loopback_only(node: PrivateNode) -> None:
    assert node.ctl("eval", LISTENING).strip() == "[{127,0,0,1}]"


def test_node_has_our_configuration_and_the_callers(node: PrivateNode) -> None:
    timeout = node.ctl("eval", "application:get_env(rabbit, dead_letter_worker_publisher_confirm_timeout).")
    assert timeout.strip() == "{ok,3000}"
    assert node.ctl("eval", "application:get_env(ra, wal_max_size_bytes).").strip() == "{ok,67108864}"
    assert node.ctl("eval", "application:get_env(rabbit, heartbeat).").strip() == "{ok,17}"


def test_failing_command_reports_the_reason_in_one_line(node: PrivateNode) -> None:
    with pytest.raises(NodeError, match="rabbitmqctl no_such_command failed: ") as failure:
        node.ctl("no_such_command")
    assert "\n" not in str(failure.value)


def test_node_keeps_data_name_and_port_after_a_crash(node: PrivateNode) -> None:
    asyncio.run(publish(node.url, b"before"))
    # Stop the application first: RabbitMQ stores the name of a new quorum queue up to half a second late, and the queue
    # of a node that is killed earlier has no leader afterwards.
    node.ctl("stop_app")
    with pytest.raises(UnreachableError, match="nothing listens at"):
        probe(node.url)
    node.ctl("start_app")
    name, url = node.name, node.url
    assert not node.revive(), "it runs"
    assert node.pid is not None
    os.kill(node.pid, signal.SIGKILL)
    until(lambda: node.pid is None, "the server has ended")
    assert node.revive()
    assert (node.name, node.url) == (name, url)
    assert asyncio.run(fetch(node.url)) == b"before"


def test_node_ends_with_its_parent_and_keeps_the_folder_until_then(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        with pytest.raises(NodeError, match=f"another run \\(process {parent.pid}\\) uses"):
            PrivateNode(tmp_path).start()
        parent.kill()
    FolderLock(tmp_path).release()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_taken_port_is_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert free_port(port) != port
    assert free_port(port) == port


def test_chosen_port_is_reserved_while_the_process_runs() -> None:
    chosen = [free_port() for _ in range(50)]
    assert len(set(chosen)) == 50
    choose = (
        "from tools.processes import ports\n"
        f"ports.RANGE = range({chosen[0]}, {chosen[0] + 1})\n"
        "try:\n    print(ports.free_port())\n"
        "except OSError:\n    print('none')"
    )
    other = subprocess.run([sys.executable, "-c", choose], capture_output=True, text=True, check=True)
    assert other.stdout == "none\n"
