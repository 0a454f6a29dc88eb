"""The queues that others have bound, and what the doctor says of them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import pytest

from jobtape.broker import declare
from jobtape.cli.doctor.administration import Unseen
from jobtape.cli.doctor.bound_queues import bound_queues
from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.relay import examine_relay
from jobtape.cli.subscriptions.subscriptions import queues_seen
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.waiting import eventually
from tools.brokers.find import install_server
from tools.brokers.node import PrivateNode
from tools.brokers.node_files import find_server
from tools.processes.ports import free_port

pytestmark = pytest.mark.anyio

BOUND = {
    "exclusive": {},
    "bounded": {"x-max-length": 5, "x-queue-type": "quorum"},
    "stream": {"x-queue-type": "stream", "x-max-age": "1D"},
    "by-policy": {},
    "boundless": {},
}


@pytest.fixture
async def node(tmp_path: Path, api: str) -> AsyncIterator[PrivateNode]:
    """A node with the management API at ``api``."""
    if find_server() is None:
        install_server(lambda line: print(line, flush=True))
    where = urlsplit(api)
    config = [f"management.tcp.port = {where.port}", f"management.tcp.ip = {where.hostname}"]
    started = PrivateNode(tmp_path / "node", config, plugins=["rabbitmq_management"])
    started.start()
    yield started
    started.stop()


@pytest.fixture
def api() -> str:
    """Where nobody listens yet."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
async def topology(node: PrivateNode) -> AsyncIterator[Topology]:
    """With a queue of each kind bound to its results."""
    made = Topology(f"test-{uuid4().hex[:10]}", delay_levels=1).with_queues(["default"])
    connection = await aio_pika.connect(node.url)
    async with connection:
        await declare.declare(connection, made)
        await declare.create_log(connection, made)
        node.ctl("set_policy", "bounds", "by-policy$", '{"max-length": 10}', "--apply-to", "queues")
        channel = await connection.channel()
        for name, arguments in BOUND.items():
            exclusive = name == "exclusive"
            queue = await channel.declare_queue(
                f"{made.namespace}-{name}",
                durable=not exclusive,
                exclusive=exclusive,
                arguments=arguments,  # type: ignore[arg-type]
            )
            await queue.bind(made.results.name, "#")
        ours = await channel.declare_queue(f"{made.namespace}.sub.x", durable=True)
        await ours.bind(made.results.name, "#")
        yield made


def test_why_they_cannot_be_seen(api: str) -> None:
    url = "amqp://guest:secret@127.0.0.1/"
    with pytest.raises(Unseen, match=rf"^the management API at {api} does not answer \(.*\)$"):
        bound_queues(url, api, None, ["jobtape.results"])
    with pytest.raises(Unseen, match=r"does not answer \(.*\); /nowhere/rabbitmqctl could not be run"):
        bound_queues(url, api, "/nowhere/rabbitmqctl", ["jobtape.results"])
    with pytest.raises(Unseen, match=r"does not answer \(.*\); false failed: 1"):
        bound_queues(url, api, "false", ["jobtape.results"])


async def test_both_ways_and_what_the_doctor_says(
    node: PrivateNode, topology: Topology, api: str, tmp_path: Path
) -> None:
    store = Store(f"sqlite:///{tmp_path / 'view.db'}")
    store.migrate()
    store.expect_fresh_tape()
    store.create_checkpoint()
    store.take_lease("me", 60)
    store.relay.move("me", 1, 5, 2, "relay-stalled: no confirm")
    nobody = "http://127.0.0.1:1"
    settings = Settings(
        rabbitmq_url=node.url, namespace=topology.namespace, management_url=nobody, rabbitmqctl=str(node.ctl_program)
    )

    def found(**changes: str) -> Findings:
        findings = Findings()
        examine_relay(findings, settings.model_copy(update=changes), topology, store)
        return findings

    connection = await aio_pika.connect(node.url)
    async with connection:
        channel = await connection.channel()
        wrong = await channel.declare_queue(exclusive=True)
        await wrong.bind(topology.events.name, "#")

        def told_alike() -> bool:
            return found() == found(management_url=api) and "by-policy" not in str(found())

        # The broker may tell of a queue, or apply a policy, a moment later on the one way than on the other.
        await eventually(lambda: asyncio.to_thread(told_alike), what="both ways tell the same")
        by_api = await asyncio.to_thread(found, management_url=api)
    assert queues_seen(settings) == (["x"], None)
    said = {item.what: item.level for item in by_api.items}
    assert said["relay-stalled: no confirm"] == "wrong"
    (refused,) = [what for what in said if what.startswith("2 events were refused")]
    assert said[refused] == "note"
    (boundless,) = [what for what in said if "have no length limit" in what]
    assert f": {topology.namespace}-boundless, {topology.namespace}-exclusive. One" in boundless
    assert f"2 queues that others have bound to {topology.results.name}" in boundless
    (internal,) = [what for what in said if "which is internal" in what]
    assert f"others have bound queues to {topology.events.name}, which is internal: {wrong.name}." in internal
    assert said[internal] == "wrong"
    store.close()


def test_a_relay_that_has_not_begun_and_bindings_that_cannot_be_seen(api: str, store: Store) -> None:
    found = Findings()
    examine_relay(found, Settings(management_url=api), Topology("jobtape"), store)
    assert [(item.level, item.part) for item in found.items] == [("note", "view"), ("note", "broker")]
    assert "receive nothing: no projector has started it yet" in found.items[0].what
    assert "cannot be seen" in found.items[1].what
    assert "JOBTAPE_RABBITMQCTL" in (found.items[1].todo or "")
