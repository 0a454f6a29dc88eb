"""Notifications of commits: listeners get events without polling, and by polling when notifications do not come."""

import asyncio

import pytest

from jobtape.broker.link import Link
from jobtape.consumer.projector.commit_notifier import CommitNotifier
from jobtape.producer.live import commit_feed, tail
from jobtape.producer.live.commit_feed import CommitFeed
from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.consumer.installation import Rig
from tests.producer.jobs import add
from tests.producer.running_api import api, settings_for
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

ADD = {"type": "add", "payload": {"x": 3, "y": 4}}
NEVER = 600.0


async def test_waiting_request_gets_outcome_without_polling(
    rig: Rig, store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "UNNOTIFIED", NEVER)
    async with api(settings_for(rig.url, rig.topology, database_url)) as served, rig.projector(store), rig.worker(add):
        feed = served.producer.listeners._commits
        with served.producer.listeners.admit("sse"):
            await eventually(lambda: feed.live, what="the queue for notifications is bound")
            for _ in range(20):
                answer = await served.client.post("/jobs", json=ADD, headers={"Prefer": "wait=20"})
                assert (answer.status_code, answer.json()["result"]) == (200, 7)


async def test_waiting_request_gets_outcome_without_notifications(
    rig: Rig, store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CommitNotifier, "notify", lambda *_: None)
    async with api(settings_for(rig.url, rig.topology, database_url)) as served, rig.projector(store), rig.worker(add):
        with served.producer.listeners.admit("sse"):
            await eventually(lambda: served.producer.listeners._commits.live, what="the queue is bound")
            answer = await served.client.post("/jobs", json=ADD, headers={"Prefer": "wait=20"})
            assert (answer.status_code, answer.json()["result"]) == (200, 7)


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_feed, "RETRY_PAUSE", 0.1)
    monkeypatch.setattr(commit_feed, "LINGER", 0.1)


@pytest.mark.usefixtures("_short")
async def test_feed_is_bound_again_after_a_cut(rig: Rig) -> None:
    calls: list[int] = []
    async with Proxy(rig.url) as proxy:
        link, sending = Link(proxy.url, name="feed"), Link(rig.url, name="notifier")
        link.start()
        sending.start()
        await sending.connection()
        feed, notifier = CommitFeed(link, rig.topology), CommitNotifier(sending, rig.topology)
        feed.on_commit = lambda: calls.append(1)
        feed.hold()
        for cut in (False, True):
            if cut:
                proxy.cut()
                await eventually(lambda: not feed.live, what="the loss is noticed")
            await eventually(lambda: feed.live)
            before = len(calls)
            notifier.notify(7)
            await eventually(lambda n=before: len(calls) > n, what="the notification arrives")  # type: ignore[misc]
        await feed.close()
        await link.close()
        await sending.close()


@pytest.mark.usefixtures("_short")
async def test_feed_has_a_queue_only_while_it_is_held(rig: Rig) -> None:
    feed = CommitFeed(rig.link, rig.topology)
    feed.hold()
    await eventually(lambda: feed.live)
    feed.release()
    feed.hold()
    await asyncio.sleep(0)
    assert feed.live, "held again in time"
    feed.release()
    await eventually(lambda: not feed.live)
    await eventually(lambda: "notifications of commits" not in {task.get_name() for task in asyncio.all_tasks()})
    await feed.close()


async def test_notifications_meanwhile_are_sent_as_one(rig: Rig) -> None:
    received: list[int] = []
    feed = CommitFeed(rig.link, rig.topology)
    feed.on_commit = lambda: received.append(1)
    feed.hold()
    await eventually(lambda: feed.live)
    before = len(received)
    notifier = CommitNotifier(rig.link, rig.topology)
    for offset in range(1000):
        notifier.notify(offset)
    await eventually(lambda: notifier._sent is None and len(received) > before)
    assert len(received) - before <= 2
    await feed.close()
