"""Webhooks over HTTP, by the clients and by the command line."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from typer.testing import CliRunner

from jobtape import Client, JobState, SyncClient, builtin
from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.webhooks import examine_webhooks
from jobtape.cli.main import app as command
from jobtape.client import Invalid, NotFound
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.job_types.job_type import WEBHOOK_QUEUE
from jobtape.schemas.job_types.secrets import Cipher
from jobtape.schemas.webhooks.delivery import WEBHOOK
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.consumer.jobs import add
from tests.producer.running_api import Api, api, problem, serve, settings_for, without_broker
from tests.waiting import eventually
from tests.webhooks.receiver import Receiver, receiving
from tests.webhooks.test_deliveries import checked, configure

pytestmark = pytest.mark.anyio
SOME_ID = "0198c2a0-7b1e-7c3d-9f42-5a1d3b6c8e90"


@dataclass
class Installation:
    """All parts, with the URL of the API and a receiver."""

    api: Api
    url: str
    receiver: Receiver


@pytest.fixture
async def running(
    rig: Rig, view: Store, broker_url: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Installation]:
    configure(monkeypatch, sqlite_url)
    settings = settings_for(broker_url, rig.topology, sqlite_url)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(api(settings, add))
        await stack.enter_async_context(rig.projector(view))
        await stack.enter_async_context(rig.worker(add, queues=["default"]))
        webhook = builtin.job_types()[WEBHOOK]
        await stack.enter_async_context(rig.worker(webhook, queues=[WEBHOOK_QUEUE], concurrency=20))
        port = await stack.enter_async_context(serve(served.app, lifespan="off"))
        receiver = await stack.enter_async_context(receiving())
        yield Installation(served, f"http://127.0.0.1:{port}", receiver)


async def test_webhook_lives(running: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = running.receiver
    rest = running.api.client
    async with Client(running.url) as client:
        made = await client.webhooks.create(
            receiver.url("/204"), filter={"events": ["succeeded"], "labels": {"to": "me"}}, description="mine"
        )
        assert (made.state, made.body, made.description) == ("active", "thin", "mine")
        assert made.filter.labels == {"to": "me"}

        # The secret is shown once: no answer, no row and no event contains it.
        assert made.secret.startswith("whsec_")
        assert made.secret not in (await rest.get("/webhooks")).text
        assert made.secret not in (await rest.get(f"/webhooks/{made.id}")).text
        assert [each.id for each in await client.webhooks.list()] == [made.id]

        # A test event says what the endpoint answers, and the secret fits.
        tested = await client.wait(await client.webhooks.test(made.id))
        assert (tested.state, tested.result["status"]) == (JobState.SUCCEEDED, 204)
        assert checked(receiver.requests[-1], made.secret) == {
            "type": "webhook.test",
            "timestamp": checked(receiver.requests[-1], made.secret)["timestamp"],
            "data": {"webhook": made.id},
        }

        job = await rest.post("/jobs", json={"type": "add", "payload": {"x": 1, "y": 2}, "labels": {"to": "me"}})
        other = await rest.post("/jobs", json={"type": "add", "payload": {"x": 1, "y": 2}})
        await client.wait(other.json()["id"])
        await eventually(lambda: len(receiver.requests) == 2)
        assert checked(receiver.requests[1], made.secret)["data"]["job"] == job.json()["id"]

        # Both secrets sign after a rotation.
        secret = await client.webhooks.rotate(made.id)
        await client.wait(await client.webhooks.test(made.id))
        assert checked(receiver.requests[2], secret) == checked(receiver.requests[2], made.secret)
        own = "whsec_" + "QUJD" * 10
        assert await client.webhooks.rotate(made.id, secret=own) == own

        # A change counts from the next attempt on; one that is disabled gets test events only, and no replay.
        changed = await client.webhooks.change(made.id, url=receiver.url("/500"), enabled=False)
        assert (changed.state, changed.disabled_because) == ("disabled", "somebody disabled it")
        failed = await client.wait(await client.webhooks.test(made.id))
        assert (failed.state, failed.error and failed.error.message) == (JobState.FAILED, "the endpoint answered 500")
        problem(await rest.post(f"/webhooks/{made.id}/replay", json={"after": 0}), 409, "webhook-disabled")
        again = await client.webhooks.change(made.id, enabled=True, url=receiver.url("/204"), filter={})
        assert (again.state, again.filter.labels) == ("active", {})
        replayed = await client.webhooks.replay(made.id, after=0)
        assert replayed.cursor == 0
        # The filter is wider now: the other job was not delivered, the first one was.
        await eventually(lambda: len(receiver.requests) == 5)
        assert checked(receiver.requests[4], own)["data"]["job"] == other.json()["id"]

        with pytest.raises(NotFound):
            await client.webhooks.get(SOME_ID)
        with pytest.raises(Invalid, match="443 and 8443"):
            monkeypatch.setattr(running.api.app.state, "webhook_allow", ())
            await client.webhooks.create("https://example.org:22/")
        await client.webhooks.delete(made.id)
        assert await client.webhooks.list() == []

    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "/url"),
        ({"url": "http://example.org/"}, "/url"),
        ({"url": "https://10.0.0.1/"}, "/url"),
        ({"url": "https://example.org/\x00"}, "/url"),
        ({"url": "https://example.org/", "secret": "short"}, "/secret"),
        ({"url": "https://example.org/", "filter": {"events": ["no"]}}, "/filter/events/0"),
        ({"url": "https://example.org/", "more": 1}, "/more"),
    ]
    for body, pointer in wrong:
        found = problem(await rest.post("/webhooks", json=body), 422, "invalid-webhook")
        assert found["errors"][0]["pointer"] == pointer, body
        assert "short" not in found["detail"]
    for path in ("", "/rotate", "/test", "/replay"):
        method = "POST" if path else "GET"
        answer = await rest.request(method, f"/webhooks/{SOME_ID}{path}", json={"after": 0} if "y" in path else {})
        problem(answer, 404, "webhook-not-found")
    problem(await rest.post(f"/webhooks/{SOME_ID}/replay", json={}), 422, "invalid-webhook")


async def test_command_line_and_synchronous_client(running: Installation) -> None:
    def use() -> None:
        def run(*words: str) -> str:
            done = CliRunner().invoke(command, ["webhooks", *words, "--url", running.url])
            assert done.exit_code == 0, (words, done.output, done.exception)
            return done.stdout.strip()

        webhook_id, secret = run("create", running.receiver.url("/204"), "--event", "failed", "--body", "full").split()
        assert run("list").split()[:3] == [webhook_id, running.receiver.url("/204"), "active"]
        run("disable", webhook_id)
        assert "somebody disabled it" in run("list")
        run("enable", webhook_id)
        run("replay", webhook_id, "--since", "2020-01-01")
        rotated = run("rotate", webhook_id)
        assert run("reencrypt") == "encrypted again: the secrets of 0 webhooks"
        delivery = run("test", webhook_id)
        with SyncClient(running.url) as client:
            assert client.wait(delivery).state is JobState.SUCCEEDED
            request = running.receiver.requests[0]
            assert Verifier(secret).verify(request.body, request.headers)
            assert Verifier(rotated).verify(request.body, request.headers)
            (found,) = client.webhooks.list()
            assert (found.id, found.body, found.filter.events) == (webhook_id, "full", ["failed"])
            made = client.webhooks.create(running.receiver.url("/200"))
            assert client.webhooks.change(made.id, description="other").description == "other"
            assert client.webhooks.get(made.id).description == "other"
            client.webhooks.delete(made.id)
        run("delete", webhook_id)
        assert run("list") == ""

    await asyncio.to_thread(use)


async def test_secrets_are_encrypted_again_with_the_newest_key(
    sqlite_url: str, view: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (base64.urlsafe_b64encode(each * 32).decode() for each in (b"o", b"n"))
    monkeypatch.setenv("JOBTAPE_SECRET_KEYS", old)

    def problems() -> list[str]:
        found = Findings()
        examine_webhooks(found, view)
        return [each.what for each in found.items if each.level != "fine"]

    async with api(without_broker(sqlite_url), add, ready=False) as served:
        made = (await served.client.post("/webhooks", json={"url": "https://example.org/"})).json()
        rotated = (await served.client.post(f"/webhooks/{made['id']}/rotate", json={})).json()["secret"]
        assert problems() == []
        monkeypatch.setenv("JOBTAPE_SECRET_KEYS", f"{new},{old}")
        assert problems() == ["the secrets of 1 webhooks are encrypted with an older key of JOBTAPE_SECRET_KEYS"]
        for count in (1, 0):
            assert (await served.client.post("/webhooks/reencrypt")).json() == {"webhooks": count}
        monkeypatch.setenv("JOBTAPE_SECRET_KEYS", new)
        assert problems() == []
        (row,) = view.webhooks.all()
        assert [Cipher(new).decrypt(each.decode()) for each in row.secrets] == [rotated, made["secret"]]
        monkeypatch.setenv("JOBTAPE_SECRET_KEYS", old)
        problem(await served.client.post("/webhooks/reencrypt"), 501, "secrets-not-configured")
        assert "add it to JOBTAPE_SECRET_KEYS" in problems()[0]


async def test_without_a_key_no_webhook_is_created(sqlite_url: str, view: Store) -> None:
    async with api(without_broker(sqlite_url), add, ready=False) as served:
        answer = await served.client.post("/webhooks", json={"url": "https://example.org/"})
        assert "JOBTAPE_SECRET_KEYS" in problem(answer, 501, "webhooks-not-configured")["detail"]
        assert (await served.client.get("/webhooks")).json() == {"items": []}
    with pytest.raises(JobtapeError, match=r"JOBTAPE_SECRET_KEYS: .*32 random bytes"):
        without_broker(sqlite_url, secret_keys="short")
