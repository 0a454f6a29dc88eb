"""Notices of commits: listeners and requests learn of them without polling, and by polling when none come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from jobtape.broker.link import Link
from jobtape.consumer.projector.commit_notifier import CommitNotifier
from jobtape.producer.live import commit_feed, outcome_wait, tail
from jobtape.producer.live.commit_feed import CommitFeed
from jobtape.producer.live.listeners import Listeners
from jobtape.producer.live.waiters import Waiters
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.job import ENDINGS
from jobtape.schemas.messages.commit_notice import MOST_JOBS, CommitNotice, decode_notice, encode_notice
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
    monkeypatch.setattr(outcome_wait, "LONGEST_POLL", NEVER)
    async with api(settings_for(rig.url, rig.topology, database_url)) as served, rig.projector(store), rig.worker(add):
        listeners = served.producer.listeners
        with listeners.admit("wait"):
            await eventually(lambda: listeners.commits.live, what="the queue for notices is bound")
            for _ in range(20):
                answer = await served.client.post("/jobs", json=ADD, headers={"Prefer": "wait=20"})
                assert (answer.status_code, answer.json()["result"]) == (200, 7)


async def test_stream_gets_events_without_polling(
    rig: Rig, store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "UNNOTIFIED", NEVER)
    async with api(settings_for(rig.url, rig.topology, database_url)) as served, rig.projector(store), rig.worker(add):
        listeners = served.producer.listeners
        with listeners.admit("sse"):
            assert await listeners.tail.begun(10)
            await eventually(lambda: listeners.commits.live, what="the queue for notices is bound")
            for n in range(1, 21):
                await served.client.post("/jobs", json=ADD)
                await eventually(lambda n=n: succeeded_in(listeners) == n)  # type: ignore[misc]


def succeeded_in(listeners: Listeners) -> int:
    """Return how many jobs have succeeded according to the tail."""
    buffer = listeners.tail.buffer
    return sum(entry.name == "succeeded" for entry in buffer.after(buffer.floor))


async def test_waiting_request_gets_outcome_without_notices(
    rig: Rig, store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CommitNotifier, "notify", lambda *_: None)
    async with api(settings_for(rig.url, rig.topology, database_url)) as served, rig.projector(store), rig.worker(add):
        with served.producer.listeners.admit("wait"):
            await eventually(lambda: served.producer.listeners.commits.live, what="the queue is bound")
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
        feed.callbacks.append(lambda _: calls.append(1))
        feed.acquire()
        for cut in (False, True):
            if cut:
                proxy.cut()
                await eventually(lambda: not feed.live, what="the loss is noticed")
            await eventually(lambda: feed.live)
            before = len(calls)
            notifier.notify({"job": False})
            await eventually(lambda n=before: len(calls) > n, what="the notice arrives")  # type: ignore[misc]
        await feed.close()
        await link.close()
        await sending.close()


@pytest.mark.usefixtures("_short")
async def test_feed_has_a_queue_only_while_it_is_held(rig: Rig) -> None:
    feed = CommitFeed(rig.link, rig.topology)
    feed.acquire()
    await eventually(lambda: feed.live)
    feed.acquire()
    feed.release()
    assert feed._stop_timer is None, "somebody else holds it"
    feed.release()
    feed.acquire()
    await asyncio.sleep(0)
    assert feed.live, "held again in time"
    feed.release()
    await eventually(lambda: not feed.live)
    await eventually(lambda: "notices of commits" not in {task.get_name() for task in asyncio.all_tasks()})
    await feed.close()


async def test_commits_meanwhile_are_notified_together(rig: Rig) -> None:
    received: list[Mapping[str, bool] | None] = []
    async with held_feed(rig, received):
        notifier = CommitNotifier(rig.link, rig.topology)
        notifier.notify({"first": False})
        await eventually(lambda: len(received) == 2)
        assert received.pop() is None, "it is not known whether notices were before it"
        jobs = [f"job-{n}" for n in range(100)]
        for job in jobs:
            notifier.notify({job: False})
        await eventually(lambda: {*jobs} == {job for each in received[1:] if each is not None for job in each})
        assert len(received) <= 3


async def test_lost_foreign_or_large_notice_concerns_any_job(rig: Rig) -> None:
    received: list[Mapping[str, bool] | None] = []
    async with held_feed(rig, received):
        notifier, other = (CommitNotifier(rig.link, rig.topology) for _ in range(2))
        steps: list[tuple[Callable[[], None], Mapping[str, bool] | tuple[()] | None]] = [
            (lambda: notifier.notify({"a": False}), None),
            (lambda: notifier.notify({"b": True}), {"b": True}),
            (lambda: other.notify({"c": False}), None),
            (lambda: other.notify({}), {}),
            (lambda: other.notify({str(n): False for n in range(MOST_JOBS + 1)}), None),
            (lambda: setattr(other, "_number", other._number + 1), ()),
            (lambda: other.notify({"d": False}), None),
            (lambda: other.notify({"e": False}), {"e": False}),
        ]
        for step, expected in steps:
            before = len(received)
            step()
            if expected != ():
                await eventually(lambda n=before: len(received) > n)  # type: ignore[misc]
                assert received[-1] == expected


async def test_ids_do_not_pile_up_while_the_broker_is_away(rig: Rig) -> None:
    notifier = CommitNotifier(Link("amqp://127.0.0.1:1/", name="away"), rig.topology)
    for n in range(100):
        notifier.notify({f"{n}-{m}": False for m in range(100)})
    assert MOST_JOBS < len(notifier._jobs) <= MOST_JOBS + 100


async def test_who_waits_for_an_outcome_sleeps_until_the_job_has_ended() -> None:
    waiters = Waiters()
    with (
        waiters.sleeping(Selection(job="a", events=ENDINGS)) as outcome,
        waiters.sleeping(Selection(job="a")) as change,
        waiters.sleeping(Selection(job="b", events=ENDINGS)) as other,
    ):
        waiters.wake_jobs({"a": False, "c": True})
        assert (outcome.done(), change.done(), other.done()) == (False, True, False)
        waiters.wake_jobs({"a": True})
        assert (outcome.done(), other.done()) == (True, False)


def test_other_messages_are_no_notices() -> None:
    for body in (b"", b"12", b"\xff", b"{}", b'{"source":"a","number":"x","jobs":{}}', b'{"source":"a","number":1}'):
        assert decode_notice(body) is None
    notice = CommitNotice("a", 1, {"x": True})
    assert decode_notice(encode_notice(notice)) == notice


@asynccontextmanager
async def held_feed(rig: Rig, received: list[Mapping[str, bool] | None]) -> AsyncIterator[None]:
    """Hold a feed that adds what it calls back with to ``received``, which has one element then."""
    feed = CommitFeed(rig.link, rig.topology)
    feed.callbacks.append(received.append)
    feed.acquire()
    await eventually(lambda: feed.live and len(received) == 1)
    try:
        yield
    finally:
        await feed.close()
