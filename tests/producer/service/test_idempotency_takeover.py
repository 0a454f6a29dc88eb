"""Repeats of a submission that is in flight, or whose process died before it was finished."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from jobtape.producer.service.ids import new_job_id
from jobtape.producer.service.submission import idempotency
from jobtape.schemas.events import Submitted
from jobtape.schemas.topology import Topology
from jobtape.view.store import KeyedSubmission, Store
from tests.broker.proxy import Proxy
from tests.conftest import MakeTopology
from tests.consumer.installation import Rig
from tests.producer.keyed_submissions import ADD, abandon, batch, expire, post, rename, rows, submitted_at
from tests.producer.running_api import Api, api, problem, settings_for
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_repeat_waits_for_submission_in_flight(served: Api, view: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repeat waits for the outcome of the first. After ``WAIT`` seconds it is 409."""
    monkeypatch.setattr(idempotency, "WAIT", 0.4)
    done = (await post(served, "done")).json()
    row = abandon(view, "k", done)
    answer = await post(served, "k")
    assert row.job_id in problem(answer, 409, "idempotency-in-flight")["detail"]
    assert int(answer.headers["retry-after"]) >= 1
    monkeypatch.setattr(idempotency, "WAIT", 20.0)
    repeats = [asyncio.create_task(post(served, "k")) for _ in range(5)]
    await eventually(lambda: served.producer.idempotency._waiting == 5)
    view.keys.finish("other", accepted=[row.job_id])
    assert {(await repeat).json()["id"] for repeat in repeats} == {row.job_id}
    assert served.producer.idempotency._waiting == 0


async def test_waiting_repeats_are_limited(served: Api, view: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "WAIT", 0.5)
    monkeypatch.setattr(idempotency, "MAX_WAITING", 3)
    abandon(view, "k", (await post(served, "done")).json())
    answers = await asyncio.gather(*(post(served, "k") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [409] * 3 + [503] * 5
    assert served.producer.idempotency._waiting == 0


async def test_repeat_publishes_event_that_was_never_published(projected: Api, view: Store, rig: Rig) -> None:
    """The process died before the publish: repeats publish the same event once."""
    done = (await post(projected, "done", ADD | {"delay": 20})).json()
    row = abandon(view, "k", done, lease=0.0)
    answers = await asyncio.gather(*(post(projected, "k", ADD | {"delay": 20}) for _ in range(10)))
    assert {(answer.status_code, answer.json()["id"]) for answer in answers} == {(202, row.job_id)}
    await rig.read_to_end()
    (event,) = rig.of(row.job_id)
    assert isinstance(event, Submitted)
    (other,) = rig.of(done["id"])
    assert isinstance(other, Submitted)
    assert event.time == row.time
    assert event.data == other.data, "the order too is the one of that time"


async def test_repeat_of_published_submission_publishes_nothing(projected: Api, view: Store, rig: Rig) -> None:
    """The process died before it marked the key as accepted: a repeat finds the job behind a barrier."""
    first = (await post(projected, "k")).json()
    expire(view, accepted=False)
    assert (await post(projected, "k")).json()["id"] == first["id"]
    assert [row["accepted"] for row in rows(view)] == [True]
    await rig.read_to_end()
    assert rig.names(first["id"]) == ["submitted"]
    assert await rig.depth() == 1


async def test_takeover_needs_projector(served: Api, view: Store, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unknown whether the first publish reached the tape. The next one may try at once."""
    row = abandon(view, "k", (await post(served, "done")).json(), lease=0.0)
    with monkeypatch.context() as impatient:
        impatient.setattr(served.producer._barrier, "_timeout", 0.3)
        for _ in range(2):
            problem(await post(served, "k"), 503, "view-behind")
    await rig.read_to_end()
    assert rig.of(row.job_id) == []
    async with rig.projector(view):
        assert (await post(served, "k")).json()["id"] == row.job_id


async def test_id_of_claimed_key_is_never_404(projected: Api, view: Store) -> None:
    done = (await post(projected, "done")).json()
    row = abandon(view, "k", done, lease=0.0)
    missing = f"{row.job_id[:-4]}0000"
    problem(await projected.client.get(f"/jobs/{missing}"), 404, "job-not-found")
    delivered = problem(await projected.client.get(f"/jobs/{row.job_id}"), 503, "view-behind")
    assert "repeat it under the same key" in delivered["detail"]
    assert (await post(projected, "k")).status_code == 202
    assert (await projected.client.get(f"/jobs/{row.job_id}")).json()["state"] == "queued"


async def test_old_id_of_claimed_key_is_found_behind_barrier(projected: Api, view: Store, rig: Rig) -> None:
    """An unknown old id is 404 at once, unless a key has it: then a barrier decides."""
    done = (await post(projected, "done")).json()
    assert (await projected.client.get(f"/jobs/{done['id']}")).status_code == 200
    problem(await projected.client.get(f"/jobs/{new_job_id()}"), 404, "job-not-found")  # a barrier has passed
    with view._database.writing() as connection:
        digest = connection.execute(text("SELECT digest FROM idempotency")).scalar_one()
    old = KeyedSubmission("k", digest, "01890000-0000-7000-8000-000000000001", submitted_at(done))
    view.keys.claim("api", "dead", [old], 0.0)
    assert projected.producer._barrier.covers(old.job_id)
    assert (await post(projected, "k")).json()["id"] == old.job_id
    assert (await projected.client.get(f"/jobs/{old.job_id}")).status_code == 200


async def test_unconfirmed_submission_is_found_by_repeat(
    broker_url: str, make_topology: MakeTopology, sqlite_url: str, view: Store
) -> None:
    """The row stays unmarked, and a repeat finds the job, which was published."""
    topology = make_topology("default", "orders")
    async with Rig(broker_url, topology) as rig, Proxy(broker_url) as proxy, rig.projector(view):
        settings = settings_for(proxy.url, topology, sqlite_url, publish_timeout=0.5, idempotency_lease=1.0)
        async with api(settings) as served:
            assert (await post(served, "warm")).status_code == 202
            proxy.hold_answers = True
            problem(await post(served, "k"), 503, "broker-unavailable")
            (row,) = [row for row in rows(view) if row["key"] == "k"]
            assert not row["accepted"]
            found = await batch(served, ADD | {"idempotency_key": "in-batch"})
            (item,) = found["items"]
            assert item["status"] == "unknown"
            proxy.hold_answers = False

            async def accepted_batch() -> Any:
                found = await batch(served, ADD | {"idempotency_key": "in-batch"})
                return found if found["accepted"] else None

            async def repeated() -> Any:
                answer = await post(served, "k")
                return answer if answer.status_code == 202 else None

            answer = await eventually(repeated)
            assert answer.json()["id"] == row["job_id"]
            again = await eventually(accepted_batch)
            assert again["items"][0]["id"] == item["id"]
            await rig.read_to_end()
            assert [event.name for event in rig.of(row["job_id"]) if isinstance(event, Submitted)] == ["submitted"]


async def test_database_loss_after_publish_keeps_job_accepted(
    broker_url: str, topology: Topology, rig: Rig, sqlite_url: str, view: Store
) -> None:
    """The database is lost between publish and mark: the job is accepted, and a repeat marks it."""
    async with (
        Proxy(broker_url) as proxy,
        rig.projector(view),
        api(settings_for(proxy.url, topology, sqlite_url)) as served,
    ):
        assert (await post(served, "warm")).status_code == 202
        proxy.hold_answers = True
        asked = asyncio.create_task(post(served, "k"))
        await eventually(lambda: len(rows(view)) == 2)
        rename(view, "idempotency", "away")
        proxy.hold_answers = False
        first = await asked
        assert first.status_code == 202
        rename(view, "away", "idempotency")
        assert sorted(row["accepted"] for row in rows(view)) == [False, True]
        expire(view)
        assert (await post(served, "k")).json()["id"] == first.json()["id"]
        assert [row["accepted"] for row in rows(view)] == [True, True]
    await rig.read_to_end()
    assert rig.names(first.json()["id"]) == ["submitted"]
