"""Tests what doctor, ``jobtape subscriptions`` and ``GET /subscriptions`` read from RabbitMQ's management API."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import aio_pika
import httpx
import pytest
from playwright.sync_api import expect

from jobtape.app import create_app
from jobtape.broker import declare
from jobtape.broker.management import ManagementApi, Unseen
from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.policies import examine_policies
from jobtape.cli.doctor.relay import examine_relay
from jobtape.cli.subscriptions import visible_queues
from jobtape.schemas.topology import Bounds, Topology
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.dashboard.browser import PHONE, Tab, browser, serious_faults
from tests.producer.jobs import add
from tests.producer.running_api import serve, settings_for, without_broker
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


@pytest.fixture
def api(management_url: str) -> str:
    """A URL for the management API; it answers only in tests that use ``node``."""
    return management_url


@pytest.fixture
def node(managed_node: PrivateNode) -> PrivateNode:
    """The node whose management API is at ``api``."""
    return managed_node


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    """A view on SQLite only: these tests do not depend on the database."""
    made = Store(sqlite_url)
    made.migrate()
    yield made
    made.close()


def put_policy(
    node: PrivateNode,
    api: str,
    name: str,
    pattern: str,
    definition: dict[str, Any],
    *,
    kind: str = "policies",
    priority: int = 0,
) -> None:
    """Set a policy on queues by the management API, which is faster than ``rabbitmqctl``."""
    login = urlsplit(node.url)
    body = {"pattern": pattern, "definition": definition, "apply-to": "queues", "priority": priority}
    with httpx.Client(auth=(login.username or "", login.password or ""), trust_env=False) as client:
        client.put(f"{api}/api/{kind}/%2F/{name}", json=body).raise_for_status()


@pytest.fixture
async def topology(node: PrivateNode, api: str) -> AsyncIterator[Topology]:
    """A topology with a queue of each kind bound to its results."""
    made = Topology(f"test-{uuid4().hex[:10]}").with_queues(["default"])
    connection = await aio_pika.connect(node.url)
    async with connection:
        await declare.declare(connection, made)
        await declare.create_log(connection, made)
        put_policy(node, api, "bounds", "by-policy$", {"max-length": 10})
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


async def test_unreachable_api_is_one_line() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unseen, match=rf"^the management API at {nowhere} does not answer \(.*\)$"):
        await ManagementApi("amqp://127.0.0.1:1/", nowhere).bound_queues(["jobtape.results"])


async def test_next_host_is_asked_when_the_first_is_away(node: PrivateNode, api: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    found = ManagementApi(node.url, f"{nowhere},{api}")
    for _ in range(2):
        assert await found.queues(["no such queue"]) == []
    with pytest.raises(Unseen, match=f"^the management API at {nowhere} or http://127.0.0.1:1 does not answer"):
        await ManagementApi("amqp://127.0.0.1:1/", f"{nowhere},http://127.0.0.1:1").queues([])


async def test_refused_user_is_one_line(node: PrivateNode, api: str) -> None:
    parts = urlsplit(node.url)
    stranger = urlunsplit(parts._replace(netloc=f"stranger:wrong@{parts.hostname}:{parts.port}"))
    with pytest.raises(Unseen, match="refuses this user: give it the tag"):
        await ManagementApi(stranger, api).bound_queues(["jobtape.results"])


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
    assert await asyncio.to_thread(visible_queues, settings) == (["x"], None)
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
    operator = "operator-policies"
    put_policy(node, api, "ttl", rf"^{name}\.(run|dead)", {"message-ttl": 60000}, priority=1)
    put_policy(node, api, "length", rf"^{name}\.run\.", {"max-length": 5, "delivery-limit": 3}, kind=operator)
    put_policy(node, api, "tape", rf"^{name}\.log$", {"max-age": "1h"}, priority=5)
    put_policy(node, api, "roomy", rf"^{name}\.log$", {"max-length-bytes": 10**15}, kind=operator, priority=5)

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


async def test_live_subscriptions_are_listed_and_shown(
    node: PrivateNode, topology: Topology, api: str, store: Store, sqlite_url: str
) -> None:
    store.expect_fresh_tape()
    store.create_checkpoint()
    wanted = '{"events": ["failed"]}'
    queue = topology.subscription_queue("billing", wanted, Bounds(messages=2, octets=5_000_000, idle=3600.0))
    connection = await aio_pika.connect(node.url)
    async with connection:
        await declare.declare_subscription(connection, topology.results, queue, ["#"])
        channel = await connection.channel()
        results = await channel.get_exchange(topology.results.name)
        for _ in range(3):
            await results.publish(aio_pika.Message(b"{}"), "failed.add")
    app = create_app(settings_for(node.url, topology, sqlite_url, management_url=api), [add])
    async with (
        serve(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):

        async def live_when_counted() -> list[dict[str, Any]] | None:
            found: list[dict[str, Any]] = (await client.get("/subscriptions")).json()["live"] or []
            # The broker's statistics arrive in parts: how many consumers a queue has may come after its messages.
            counted = ((each["name"], each["messages"], each["consumers"] is None) for each in found)
            return found if ("billing", 2, False) in counted else None

        live = await eventually(live_when_counted, what="the API shows what waits")
        await asyncio.to_thread(see_live_subscriptions, port)
    billing, own, *others = live
    assert billing == {
        "name": "billing",
        "queue": f"{topology.namespace}.sub.billing",
        "messages": 2,
        "consumers": 0,
        "filter": wanted,
        "limits": {"messages": 2, "bytes": 5_000_000, "age": None, "expires": 3600.0},
    }
    assert (own["name"], own["filter"], set(own["limits"].values())) == ("x", None, {None})
    assert {each["queue"].removeprefix(f"{topology.namespace}-"): each["limits"]["messages"] for each in others} == {
        "bounded": 5,
        "by-policy": 10,
        "exclusive": None,
        "stream": None,
        "unlimited": None,
    }
    assert {each["name"] for each in others} == {None}
    assert [each["limits"]["age"] for each in others if each["queue"].endswith("-stream")] == ["1D"]


async def test_silent_management_api_holds_up_no_answer(store: Store, sqlite_url: str) -> None:
    store.create_checkpoint()
    store.positions.begin("subscription.audit", 0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        app = create_app(without_broker(sqlite_url, management_url=url), [add])
        async with serve(app) as port, httpx.AsyncClient(trust_env=False) as client:
            body = (await client.get(f"http://127.0.0.1:{port}/subscriptions")).json()
    assert [each["name"] for each in body["items"]] == ["audit"]
    assert (body["live"], "has not answered yet" in body["live_reason"]) == (None, True)


def see_live_subscriptions(port: int) -> None:
    """Look at the page of subscriptions in a browser."""
    with browser() as chromium:
        opened = Tab(chromium, f"http://127.0.0.1:{port}")
        page = opened.go("subscriptions")
        row = page.get_by_role("row", name="billing")
        expect(row).to_contain_text("2 (full)", timeout=20_000)
        expect(row).to_contain_text('{"events": ["failed"]}2 events, 5.0 MB, removed after 1 h')
        expect(page.get_by_label("Live subscriptions").locator("tbody tr")).to_have_count(2 + len(BOUND))
        assert not serious_faults(page)
        page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        opened.context.close()
        assert opened.faults == []
