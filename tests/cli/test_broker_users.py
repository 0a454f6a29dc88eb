"""Tests ``jobtape broker users``: each part works with its user, and a user may do nothing else."""

import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiormq.exceptions
import pytest

from jobtape.broker.link import connected
from jobtape.schemas.topology import EVENT_KEY, Topology
from jobtape.settings import Settings
from jobtape.subscribing import subscribe
from tests.cli.installation import Installation, health, installation_in
from tests.cli.programs import LIMIT, until
from tests.namespaces import some_topology
from tools.brokers.node import PrivateNode

PARTS = ("api", "worker", "projector", "subscriber")
REFUSED = ("ACCESS_REFUSED", "access to")


@pytest.fixture
def topology() -> Topology:
    return some_topology("default", "gates")


@pytest.fixture
def managed(
    tmp_path: Path, managed_node: PrivateNode, management_url: str, topology: Topology
) -> Iterator[Installation]:
    """An installation on a broker with a management API."""
    made = installation_in(
        tmp_path,
        RABBITMQ_URL=managed_node.url,
        JOBTAPE_MANAGEMENT_URL=management_url,
        JOBTAPE_NAMESPACE=topology.namespace,
    )
    yield made
    made.close()


def users(made: Installation, *options: str) -> dict[str, Any]:
    """Return what ``jobtape broker users`` prints, by the name of the part."""
    done = made.run("broker", "users", "--json", *options)
    assert done.returncode == 0, done.stderr
    return {each["part"]: each for each in json.loads(done.stdout)["items"]}


def test_commands_have_the_permissions_and_no_password(installation: Installation) -> None:
    installation.env |= {"JOBTAPE_NAMESPACE": "shop", "RABBITMQ_URL": "amqp://boss:secret@one,two/a%20b"}
    done = installation.run("broker", "users")
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [line[1:] for line in lines[::2]] == [["add_user", f"shop-{part}"] for part in PARTS]
    wanted = users(installation)
    for line, part in zip(lines[1::2], PARTS, strict=True):
        regexes = [wanted[part][name] for name in ("configure", "write", "read")]
        assert line == ["rabbitmqctl", "set_permissions", "-p", "a b", f"shop-{part}", *regexes]
        for each in regexes:  # nothing of another namespace
            assert not any(re.search(each, name) for name in ("shop2.events", "a.shop.events", "shopXevents", "shop"))
    assert "secret" not in done.stdout


def test_apply_without_management_api_says_what_to_do(installation: Installation) -> None:
    done = installation.run("broker", "users", "--apply")
    assert done.returncode == 1
    assert "the tag `administrator`" in done.stderr
    assert "secret" not in done.stderr


def test_each_part_works_with_its_user(managed: Installation, topology: Topology) -> None:
    made = users(managed, "--apply")
    assert all(each["created"] for each in made.values())
    urls = {part: each["url"] for part, each in made.items()}
    programs = [managed.start(part, RABBITMQ_URL=urls[part]) for part in ("projector", "api", "worker")]
    until(lambda: health(f"http://127.0.0.1:{managed.port}")[0] == 200, "the API is ready")
    programs[2].line_with("taking jobs")

    async def first_event() -> str:
        settings = Settings(rabbitmq_url=urls["subscriber"], namespace=topology.namespace)
        async with subscribe(types="add", name="audit", settings=settings) as subscription:
            job = (await asyncio.to_thread(managed.submit, "add", {"x": 1, "y": 2}, "--wait")).splitlines()
            assert job, "the job has a result"
            async for event in subscription:
                return event.name
        raise AssertionError("the subscription ended")

    assert asyncio.run(asyncio.wait_for(first_event(), LIMIT)) == "succeeded"

    later = managed.submit("add", {"x": 1, "y": 2}, "--delay", "3600")
    for arguments in (("cancel", later), ("pause", "--queue", "gates"), ("resume", "--queue", "gates")):
        done = managed.run(*arguments)
        assert done.returncode == 0, done.stderr
    replayed = managed.run("replay", topology.subscription_name("audit"), "--json")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    until(lambda: json.loads(managed.run("workers", "--json").stdout)["items"], "the signs of life arrive")

    refused = [line for each in programs for line in each.lines if any(text in line for text in REFUSED)]
    assert refused == []
    asyncio.run(try_what_is_refused(urls, topology))

    again = users(managed, "--apply")
    assert not any(each["created"] or each["url"] for each in again.values())
    assert "its password is unchanged" in managed.run("broker", "users", "--apply").stdout


async def try_what_is_refused(urls: dict[str, str], topology: Topology) -> None:
    """Use each user for what it may not do."""
    work, events = topology.work_queue("default").name, topology.events.name
    own = topology.subscription_name("audit")
    await publish_refused(urls["subscriber"], events, EVENT_KEY)
    for exchange in (topology.results.name, topology.dead.name, ""):
        await publish_refused(urls["subscriber"], exchange, work)
    for queue in (work, topology.log.name, topology.cancels.name, topology.dead_queue.name):
        await read_refused(urls["subscriber"], queue)
    await bind_refused(urls["subscriber"], own, events)
    await delete_refused(urls["subscriber"], work)
    for part in ("api", "worker"):
        await publish_refused(urls[part], "", work)
        await publish_refused(urls[part], topology.results.name, "x")
        await read_refused(urls[part], topology.log.name)
        await delete_refused(urls[part], topology.log.name)
    for part in ("api", "worker", "projector"):
        await read_refused(urls[part], own)
        await delete_refused(urls[part], own)


async def publish_refused(url: str, exchange: str, key: str) -> None:
    """Publish, and fail unless the broker refuses."""
    async with connected(url, LIMIT) as connection:
        channel = await connection.channel()
        opened = await channel.get_underlay_channel()
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await opened.basic_publish(b"x", exchange=exchange, routing_key=key, mandatory=True)


async def read_refused(url: str, queue: str) -> None:
    """Consume ``queue``, and fail unless the broker refuses."""
    async with connected(url, LIMIT) as connection:
        opened = await (await connection.channel()).get_underlay_channel()
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await opened.basic_get(queue)


async def bind_refused(url: str, queue: str, exchange: str) -> None:
    """Bind ``queue`` to ``exchange``, and fail unless the broker refuses."""
    async with connected(url, LIMIT) as connection:
        opened = await (await connection.channel()).get_underlay_channel()
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await opened.queue_bind(queue, exchange, EVENT_KEY)


async def delete_refused(url: str, queue: str) -> None:
    """Delete ``queue``, and fail unless the broker refuses."""
    async with connected(url, LIMIT) as connection:
        opened = await (await connection.channel()).get_underlay_channel()
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await opened.queue_delete(queue)
