"""Tests what the doctor and ``jobtape subscriptions`` read from RabbitMQ's management API."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import aio_pika
import pytest

from jobtape.broker import declare
from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.management import Unseen, bound_queues
from jobtape.cli.doctor.policies import examine_policies
from jobtape.cli.doctor.relay import examine_relay
from jobtape.cli.subscriptions import visible_queues
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.brokers import ensure_server
from tests.waiting import eventually
from tools.brokers.node import PrivateNode
from tools.processes.ports import free_port

pytestmark = pytest.mark.anyio

BOUND = {
    "exclusive": {},
    "bounded": {"x-max-length": 5, "x-queue-type": "quorum"},
    "stream": {"x-queue-type": "stream", "x-max-age": "1D"},
    "by-policy": {},
    "unlimited": {},
}


@pytest.fixture(scope="module")
def api() -> str:
    """A URL for the management API; it answers only in tests that use ``node``."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, api: str) -> Iterator[PrivateNode]:
    """A node whose management API is at ``api``."""
    ensure_server()
    address = urlsplit(api)
    config = [f"management.tcp.port = {address.port}", f"management.tcp.ip = {address.hostname}"]
    started = PrivateNode(tmp_path_factory.mktemp("managed") / "node", config, plugins=["rabbitmq_management"])
    started.start()
    yield started
    started.stop()


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    """A view on SQLite only: these tests do not depend on the database."""
    made = Store(sqlite_url)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
async def topology(node: PrivateNode) -> AsyncIterator[Topology]:
    """A topology with a queue of each kind bound to its results."""
    made = Topology(f"test-{uuid4().hex[:10]}").with_queues(["default"])
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
        own = await channel.declare_queue(f"{made.namespace}.sub.x", durable=True)
        await own.bind(made.results.name, "#")
        yield made


def test_unreachable_api_is_one_line() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unseen, match=rf"^the management API at {nowhere} does not answer \(.*\)$"):
        bound_queues(Settings(management_url=nowhere), ["jobtape.results"])


def test_refused_user_is_one_line(node: PrivateNode, api: str) -> None:
    parts = urlsplit(node.url)
    stranger = urlunsplit(parts._replace(netloc=f"stranger:wrong@{parts.hostname}:{parts.port}"))
    with pytest.raises(Unseen, match="refuses this user: give it the tag"):
        bound_queues(Settings(rabbitmq_url=stranger, management_url=api), ["jobtape.results"])


async def test_doctor_names_bound_queues_without_limit(
    node: PrivateNode, topology: Topology, api: str, store: Store
) -> None:
    store.expect_fresh_tape()
    store.create_checkpoint()
    store.take_lease("me", 60)
    store.relay.move("me", 1, 5, 2, "relay-stalled: no confirm")
    settings = Settings(rabbitmq_url=node.url, namespace=topology.namespace, management_url=api)

    def found() -> dict[str, str]:
        findings = Findings()
        examine_relay(findings, settings, topology, store)
        return {item.what: item.level for item in findings.items}

    connection = await aio_pika.connect(node.url)
    async with connection:
        channel = await connection.channel()
        wrong = await channel.declare_queue(exclusive=True)
        await wrong.bind(topology.events.name, "#")
        # The API shows a new queue, and the policy that applies to it, some seconds later.
        await eventually(
            lambda: asyncio.to_thread(lambda: any("2 queues that others" in what for what in found())),
            what="the API shows the policy",
        )
        levels = await asyncio.to_thread(found)
    assert visible_queues(settings) == (["x"], None)
    assert levels["relay-stalled: no confirm"] == "wrong"
    (refused,) = [what for what in levels if what.startswith("2 events were refused")]
    assert levels[refused] == "note"
    (unlimited,) = [what for what in levels if "have no length limit" in what]
    assert f": {topology.namespace}-exclusive, {topology.namespace}-unlimited. One" in unlimited
    assert f"2 queues that others have bound to {topology.results.name}" in unlimited
    (internal,) = [what for what in levels if "which is internal" in what]
    assert f"others have bound queues to {topology.events.name}, which is internal: {wrong.name}." in internal
    assert levels[internal] == "wrong"


def test_doctor_names_reason_why_bound_queues_are_unknown(store: Store) -> None:
    found = Findings()
    examine_relay(found, Settings(management_url="http://127.0.0.1:1"), Topology("jobtape"), store)
    assert [(item.level, item.part) for item in found.items] == [("note", "view"), ("note", "broker")]
    assert "receive nothing: no projector has started it yet" in found.items[0].what
    assert "it is not known which queues are bound" in found.items[1].what
    assert "JOBTAPE_MANAGEMENT_URL" in (found.items[1].todo or "")


async def test_doctor_names_each_policy_with_queue_and_value(
    node: PrivateNode, topology: Topology, api: str, store: Store
) -> None:
    name = topology.namespace
    given = [
        ("set_policy", "ttl", rf"^{name}\.(run|dead)", {"message-ttl": 60000}, "1"),
        ("set_operator_policy", "length", rf"^{name}\.run\.", {"max-length": 5, "delivery-limit": 3}, "0"),
        ("set_policy", "tape", rf"^{name}\.log$", {"max-age": "1h"}, "5"),
        ("set_operator_policy", "roomy", rf"^{name}\.log$", {"max-length-bytes": 10**15}, "5"),
    ]
    for kind, policy, pattern, definition, priority in given:
        node.ctl(kind, policy, pattern, json.dumps(definition), "--apply-to", "queues", "--priority", priority)

    expected = [
        f"the policy tape and roomy sets max-age: 1h on {name}.log",
        f"the policy ttl and length sets delivery-limit: 3 on {name}.run.default",
        f"the policy ttl and length sets max-length: 5 on {name}.run.default",
        f"the policy ttl and length sets message-ttl: 60000 on {name}.run.default",
        f"the policy ttl sets message-ttl: 60000 on {name}.dead",
    ]  # the tape's declared size is smaller

    def wrong() -> list[str]:
        found = Findings()
        settings = Settings(rabbitmq_url=node.url, namespace=name, management_url=api)
        examine_policies(found, settings, topology)
        return sorted(item.what.partition(";")[0] for item in found.items if item.level == "wrong")

    await eventually(lambda: asyncio.to_thread(lambda: wrong() == expected), what="the API shows the policies")
