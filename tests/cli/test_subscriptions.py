"""Tests ``jobtape subscriptions``, and what the doctor finds about subscriptions."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest

from jobtape.broker import declare
from jobtape.broker.declare import remove_namespace
from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.view import examine_view
from jobtape.schemas.topology import Bounds, Topology
from jobtape.view.store import Gap, Store
from tests.cli.installation import Installation, installation_in
from tests.namespaces import environment_for, some_topology


@pytest.fixture
def topology() -> Topology:
    return some_topology()


@pytest.fixture
def on_broker(tmp_path: Path, broker_url: str, topology: Topology, sqlite_url: str) -> Iterator[Installation]:
    """An installation that does not run, with the queue of the subscription ``billing`` on the broker."""
    made = installation_in(tmp_path, **environment_for(broker_url, topology), DATABASE_URL=sqlite_url)
    asyncio.run(declare_billing(broker_url, topology))
    yield made
    made.close()
    asyncio.run(remove_namespace(broker_url, topology))


@pytest.fixture
def view(sqlite_url: str) -> Iterator[Store]:
    """A view with the position of the subscription ``audit``."""
    store = Store(sqlite_url)
    store.migrate()
    store.create_checkpoint()
    assert store.positions.begin("subscription.audit", 7)
    yield store
    store.close()


async def declare_billing(broker_url: str, topology: Topology) -> None:
    queue = topology.subscription_queue("billing", "{}", Bounds())
    async with await aio_pika.connect(broker_url) as connection:
        await declare.declare_subscription(connection, topology.results, queue, ["#"])


def test_subscriptions_are_listed_and_removed(on_broker: Installation, view: Store) -> None:
    listed = on_broker.run("subscriptions", "list", "billing", "--json")
    audit, billing = json.loads(listed.stdout)["items"]
    assert (audit["name"], audit["position"]["cursor"], audit["queue"]) == ("audit", 7, None)
    assert billing == {"name": "billing", "position": None, "queue": {"messages": 0, "consumers": 0}}
    lines = on_broker.run("subscriptions", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "audit"]
    removed = on_broker.run("subscriptions", "remove", "billing")
    assert (removed.returncode, "with 0 events" in removed.stdout) == (0, True), removed.stderr
    assert on_broker.run("subscriptions", "remove", "audit").stdout == "position audit: removed\n"
    assert view.positions.all() == []
    again = on_broker.run("subscriptions", "remove", "billing")
    assert (again.returncode, "there is no subscription 'billing'" in again.stderr) == (1, True)


def test_remove_reports_missing_broker_or_database_and_removes_the_rest(on_broker: Installation, view: Store) -> None:
    no_broker = {"RABBITMQ_URL": "amqp://guest:guest@127.0.0.1:1/"}
    done = on_broker.run("subscriptions", "remove", "audit", **no_broker)
    assert (done.returncode, done.stdout) == (1, "position audit: removed\n")
    assert "start it, or name another one in RABBITMQ_URL" in done.stderr
    assert view.positions.all() == []
    done = on_broker.run("subscriptions", "remove", "billing", DATABASE_URL="sqlite:////nowhere/view.db")
    assert (done.returncode, "jobtape init" in done.stderr, "removed" in done.stdout) == (1, True, True)
    assert on_broker.run("subscriptions", "remove", "a b").returncode == 2


def test_doctor_names_subscription_that_missed_events(view: Store) -> None:
    found = Findings()
    examine_view(found, view)
    assert not any("audit" in item.what for item in found.items)
    assert view.take_lease("me", 60) is not None
    assert view.report_gap("me", Gap("tape-replaced", "test"))
    view.accept_gap()
    found = Findings()
    examine_view(found, view)
    (wrong,) = [item for item in found.items if "audit has missed events" in item.what]
    assert (wrong.level, "on_gap='skip'" in (wrong.todo or "")) == ("wrong", True)
