"""Pauses, limits and schedules by both clients."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from jobtape import Client, Cron, Every, JobState, Options, PayloadInvalid, SyncClient
from jobtape.client import Conflict, Invalid, NotFound
from tests.broker.proxy import Proxy
from tests.client.jobs import add

pytestmark = pytest.mark.anyio


async def test_queues_and_job_types_are_paused_and_resumed(client: Client) -> None:
    rule = await client.pause(queue="default")
    assert (rule.type, rule.state) == ("jobtape.pause", JobState.HELD)
    assert rule.payload == {"queue": "default", "type": None}
    assert await client.resume(queue="default")
    assert not await client.resume(queue="default")
    assert (await client.pause(job_type=add)).payload == {"queue": None, "type": "add"}
    assert await client.resume(job_type="add")
    with pytest.raises(Invalid, match=r"known: add, .*boom"):
        await client.pause(job_type="ad")
    with pytest.raises(ValueError, match=r"queue=\.\.\. or job_type="):
        await client.pause()


async def test_limits_are_changed_listed_and_restored(client: Client) -> None:
    assert await client.limits.list() == []
    rule = await client.limits.put("mail", 10, per=60, key="tenant=a")
    (changed,) = await client.limits.list()
    assert (changed.id, changed.name, changed.key, changed.at_most, changed.per) == (
        rule.id,
        "mail",
        "tenant=a",
        10,
        60,
    )
    assert not await client.limits.delete("mail")
    assert await client.limits.delete("mail", key="tenant=a")
    assert await client.limits.list() == []


async def test_schedule_lives(client: Client, network: Proxy) -> None:
    rule = await client.schedules.put_with(
        Options(labels={"team": "a"}), "nightly", Cron("30 2 * * *", tz="Europe/Berlin"), add, 1, y=2
    )
    again = await client.schedules.put_with(
        Options(labels={"team": "a"}), "nightly", Cron("30 2 * * *", tz="Europe/Berlin"), "add", {"x": 1, "y": 2}
    )
    assert again.id == rule.id, "the same schedule by the name of the job type"
    (found,) = await client.schedules.list()
    assert found == await client.schedules.get("nightly")
    assert (found.id, found.cron, found.tz, found.type) == (rule.id, "30 2 * * *", "Europe/Berlin", "add")
    assert (found.payload, found.labels, found.origin) == ({"x": 1, "y": 2}, {"team": "a"}, None)
    assert found.next == (await client.schedules.ticks("nightly", 2))[0].at
    job = await client.schedules.trigger("nightly")
    assert job.labels == {"team": "a", "schedule": "nightly"}
    await client.schedules.pause("nightly")
    assert (await client.schedules.get("nightly")).next is None
    await client.schedules.resume("nightly")
    replaced = await client.schedules.replace(await client.schedules.get("nightly"), Every(hours=1), add, x=1)
    assert (await client.schedules.get("nightly")).id == replaced.id
    with pytest.raises(Conflict, match="has changed"):
        await client.schedules.replace(found, Every(hours=2), add, x=1)
    sent = network.seen
    with pytest.raises(ValueError, match="no cron expression"):
        await client.schedules.put("nightly", Cron("0 25 * * *"), add, x=1)
    with pytest.raises(ValueError, match="give them as arguments here"):
        await client.schedules.put("nightly", Every(hours=1, payload={"x": 1}), add)
    with pytest.raises(PayloadInvalid):
        await client.schedules.put("nightly", Every(hours=1), add, x="one")
    assert network.seen == sent, "nothing was sent"
    await client.schedules.delete("nightly")
    with pytest.raises(NotFound, match="nightly"):
        await client.schedules.get("nightly")


async def test_sync_client_has_the_same_methods(network: Proxy) -> None:
    def use() -> None:
        with SyncClient(network.url) as client:
            assert client.pause(queue="default").type == "jobtape.pause"
            assert client.resume(queue="default")
            client.limits.put("mail", 3)
            assert [each.at_most for each in client.limits.list()] == [3]
            assert client.limits.delete("mail")
            client.schedules.put("hourly", Every(hours=1), add, x=1)
            assert client.schedules.get("hourly") == client.schedules.list()[0]
            hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
            done = client.schedules.backfill("hourly", hour - timedelta(hours=3), hour, limit=2)
            assert [each.at for each in done.submitted] == [hour - timedelta(hours=n) for n in (3, 2)]
            assert done.next == hour - timedelta(hours=1)
            assert client.get(done.submitted[0].job).payload == {"x": 1, "y": 0}
            client.schedules.replace(client.schedules.get("hourly"), Every(hours=1), add, x=2)
            client.schedules.pause("hourly")
            client.schedules.resume("hourly")
            assert len(client.schedules.ticks("hourly", 2)) == 2
            assert client.schedules.trigger("hourly").type == "add"
            client.schedules.delete("hourly")

    await asyncio.to_thread(use)
