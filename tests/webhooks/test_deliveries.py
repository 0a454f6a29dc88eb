"""Events become deliveries: which, how often, and what the endpoint gets."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import update
from standardwebhooks import Webhook as Verifier
from uuid_utils import uuid7

from jobtape import builtin
from jobtape.consumer.projector.dispatch import webhooks as dispatch
from jobtape.schemas.events import JobEvent, Retrying
from jobtape.schemas.filters.selection import EventFilter
from jobtape.schemas.job import JobState
from jobtape.schemas.job_types.job_type import WEBHOOK_QUEUE
from jobtape.schemas.job_types.secrets import Cipher
from jobtape.schemas.webhooks.delivery import WEBHOOK, delivery_id
from jobtape.view import tables
from jobtape.view.sql.clock import NOW
from jobtape.view.store import JobQuery, Store, Webhook
from jobtape.webhooks.secrets import new_secret
from tests.consumer import jobs
from tests.consumer.installation import Rig
from tests.waiting import eventually
from tests.webhooks.receiver import Received, Receiver, receiving

pytestmark = pytest.mark.anyio

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
CIPHER = Cipher(KEY)


def configure(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    """Set what the deliveries read from the environment."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("JOBTAPE_SECRET_KEYS", KEY)
    monkeypatch.setenv("JOBTAPE_WEBHOOK_ALLOW", "127.0.0.0/8")


@pytest.fixture
def store(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A view, which the deliveries find in the environment, as in a projector's process."""
    configure(monkeypatch, database_url)
    opened = Store(database_url)
    opened.migrate()
    yield opened
    opened.close()


def endpoint(store: Store, url: str, secret: str, *, body: Any = "thin", **wanted: Any) -> str:
    """Create an endpoint and return its id."""
    webhook_id = str(uuid7())
    head = store.committed.reach().head
    store.webhooks.create(webhook_id, url, "", EventFilter(**wanted), body, CIPHER.encrypt(secret).encode(), head)
    return webhook_id


def row(store: Store, webhook_id: str) -> Webhook:
    """Return an endpoint as it is now."""
    found = store.webhooks.read(webhook_id)
    assert found is not None
    return found


def deliveries(store: Store, webhook_id: str) -> dict[str, Any]:
    """Return the deliveries of an endpoint by the id of the job whose event they deliver."""
    found = store.list_jobs(JobQuery(types=(WEBHOOK,), labels=(("webhook", webhook_id),), limit=1000))
    return {(job.payload or {})["body"]["data"]["job"]: job for job in found}


@asynccontextmanager
async def installation(rig: Rig, store: Store) -> AsyncIterator[Receiver]:
    """Projector, workers and a receiver."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(rig.projector(store))
        await stack.enter_async_context(rig.worker(jobs.add, jobs.boom, queues=["default"]))
        webhook = builtin.job_types()[WEBHOOK]
        await stack.enter_async_context(rig.worker(webhook, queues=[WEBHOOK_QUEUE], concurrency=50))
        yield await stack.enter_async_context(receiving())


def checked(request: Received, secret: str) -> Any:
    """Return the body of a request whose signature an independent implementation accepts."""
    return Verifier(secret).verify(request.body, request.headers)


async def test_events_are_delivered_signed_and_filtered(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "PROBE_EVERY", 0.5)
    secret, old = new_secret(), new_secret()
    async with installation(rig, store) as receiver:
        thin = endpoint(store, receiver.url("/204"), secret)
        full = endpoint(store, receiver.url("/200"), old, body="full", events=["succeeded"], labels={"of": "mine"})
        gone = endpoint(store, receiver.url("/410"), secret, events=["failed"])
        moved = endpoint(store, receiver.url("/redirect"), secret, events=["failed"])
        hanging = endpoint(store, receiver.url("/hang"), secret, events=["cancelled"])
        store.webhooks.rotate(full, CIPHER.encrypt(secret).encode())
        await eventually(lambda: len(store.webhooks.enabled()) == 5)

        done = await rig.submit("add", {"x": 1, "y": 2}, labels={"of": "mine"})
        failed = await rig.submit("boom")
        await rig.outcome(done)
        await rig.outcome(failed)

        # Each event is one request, which the endpoint's own secret signs, and so does the old one for a day.
        await eventually(lambda: len(receiver.at("/204")) == 2 and len(receiver.at("/200")) == 1)
        by_job = {checked(each, secret)["data"]["job"]: each for each in receiver.at("/204")}
        assert set(by_job) == {done, failed}
        body = checked(by_job[done], secret)
        event = next(each for each in rig.of(done) if each.name == "succeeded")
        assert body["type"] == "job.succeeded"
        assert body["timestamp"] == event.time.isoformat()
        assert body["data"]["event"] == event.id
        assert body["data"]["state"] == "succeeded"
        assert by_job[done].headers["webhook-id"] == delivery_id(thin, event.id, event.time)
        whole = receiver.at("/200")[0]
        assert checked(whole, secret) == checked(whole, old)
        assert json.loads(whole.body)["data"]["event_data"]["result"] == 3

        # 410 disables at once, a redirect is a failure that is not followed, and no delivery delivers a delivery.
        await eventually(lambda: row(store, gone).state == "disabled")
        await eventually(lambda: row(store, moved).state == "failing")
        assert row(store, moved).last_error == "the endpoint answered 302"
        await eventually(lambda: deliveries(store, gone)[failed].state is JobState.FAILED)
        await eventually(lambda: deliveries(store, thin)[done].state is JobState.SUCCEEDED)
        await eventually(lambda: deliveries(store, moved)[failed].state is JobState.RETRYING)
        assert len(deliveries(store, thin)) == 2
        assert deliveries(store, hanging) == {}

        # A disabled endpoint gets nothing; enabled again, what comes from then on; a replay brings the rest.
        missed = await rig.submit("boom")
        await rig.outcome(missed)
        await eventually(lambda: missed in deliveries(store, thin))
        receiver.answers["/410"] = lambda: "HTTP/1.1 200 OK"
        store.webhooks.enable(gone, store.committed.reach().head)
        later = await rig.submit("boom")
        await eventually(lambda: later in deliveries(store, gone))
        assert missed not in deliveries(store, gone)
        store.webhooks.replay(gone, 0, store.committed.reach().head)
        await eventually(lambda: [each.state for each in deliveries(store, gone).values()] == [JobState.SUCCEEDED] * 3)
        assert deliveries(store, gone)[failed].run == 2
        assert len(receiver.at("/410")) == 4

        # Five days of failures only: then the endpoint is disabled. A success before that would have ended them.
        receiver.answers["/redirect"] = lambda: "HTTP/1.1 503 Later\r\nRetry-After: 7200"
        with store._database.writing() as connection:
            long_ago = update(tables.webhooks).where(tables.webhooks.c.id == moved)
            connection.execute(long_ago.values(failing_since=NOW - 5 * 86_400 - 60))
        await eventually(lambda: row(store, moved).state == "disabled")
        asked = await eventually(lambda: next((each for each in rig.events if _is_503(each)), None))
        assert isinstance(asked, Retrying)
        assert (asked.data.next_at - asked.time).total_seconds() > 7000


def _is_503(event: JobEvent) -> bool:
    return isinstance(event, Retrying) and event.data.error.message == "the endpoint answered 503"


async def test_endpoint_that_fails_gets_probes_and_catches_up(
    rig: Rig, view: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, view.url)
    monkeypatch.setattr(dispatch, "MOST_OPEN", 5)
    async with installation(rig, view) as receiver:
        receiver.answers["/500"] = lambda: "HTTP/1.1 500 Broken"
        broken = endpoint(view, receiver.url("/500"), new_secret())
        healthy = endpoint(view, receiver.url("/204"), new_secret())
        ids = [await rig.submit("add", {"x": n, "y": 0}) for n in range(30)]
        await eventually(lambda: len(receiver.at("/204")) == 30)
        await asyncio.gather(*(rig.outcome(each) for each in ids))
        # What is open of the broken endpoint was begun before it failed first, or is a probe.
        assert 1 <= len(deliveries(view, broken)) <= 10
        monkeypatch.setattr(dispatch, "PROBE_EVERY", 0.1)
        receiver.answers["/500"] = lambda: "HTTP/1.1 200 OK"
        await eventually(
            lambda: [each.state for each in deliveries(view, broken).values()] == [JobState.SUCCEEDED] * 30
        )
        assert set(deliveries(view, healthy)) == set(deliveries(view, broken)) == set(ids)


async def test_killed_projector_submits_each_delivery_once(
    rig: Rig, view: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The projector dies between the submissions and the save of the cursor, again and again."""
    configure(monkeypatch, view.url)
    monkeypatch.setattr(dispatch, "WINDOW", 7)
    monkeypatch.setattr(dispatch, "MOST_OPEN", 1000)  # at first nothing takes the deliveries
    ids: list[str] = []
    async with receiving() as receiver, rig.worker(jobs.add, queues=["default"]):
        webhook_id = endpoint(view, receiver.url("/204"), new_secret())
        for n in range(4):
            died = asyncio.Event()
            with monkeypatch.context() as patched:

                async def die(self: Any, died: asyncio.Event = died) -> None:
                    if self._unsaved:
                        died.set()
                        await asyncio.get_running_loop().create_future()

                patched.setattr(dispatch.WebhookDispatcher, "_save", die)
                async with rig.projector(view, owner=f"p{n}"):
                    ids += [await rig.submit("add", {"x": n, "y": 0}) for _ in range(10)]
                    await died.wait()
        assert row(view, webhook_id).cursor == 0
        webhook = builtin.job_types()[WEBHOOK]
        async with rig.projector(view, owner="last"), rig.worker(webhook, queues=[WEBHOOK_QUEUE], concurrency=50):
            await eventually(lambda: len(ended(view, webhook_id)) == len(ids))
            await eventually(lambda: row(view, webhook_id).cursor > 0)
    assert set(ended(view, webhook_id)) == set(ids)
    message_ids = [each.headers["webhook-id"] for each in receiver.requests]
    assert len(message_ids) == len(set(message_ids)) == len(ids)
    await rig.read_to_end()
    orders = [each.subject for each in rig.events if each.name == "placed" and each.data.job_type == WEBHOOK]
    assert sorted(orders) == sorted(message_ids)


def ended(store: Store, webhook_id: str) -> list[str]:
    """Return the ids of the jobs whose event an endpoint has taken."""
    return [job_id for job_id, each in deliveries(store, webhook_id).items() if each.state is JobState.SUCCEEDED]
