"""One key is one job: repeats, other submissions, scopes and retention of keys."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

import jobtape
from jobtape.producer.service.errors import IdempotencyKeyInvalid, IdempotencyKeyReused
from jobtape.schemas.events import Submitted
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.producer.jobs import add, place
from tests.producer.keyed_submissions import ADD, batch, post, rows
from tests.producer.running_api import Api, api, problem, running_producer, settings_for
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_repeat_returns_same_job_in_present_state(projected: Api, rig: Rig) -> None:
    first = await post(projected, "k-1")
    assert first.status_code == 202, first.text
    again = await post(projected, '"k-1"', {"payload": {"y": 2, "x": 1}, "type": "add", "queue": None})
    assert again.status_code == 202
    assert again.headers["location"] == first.headers["location"]
    assert again.json()["id"] == first.json()["id"]
    async with rig.worker(add):
        await rig.outcome(first.json()["id"])
        await projected.client.get(first.headers["location"])  # the view has it

        async def now() -> bool:
            return bool((await post(projected, "k-1")).json()["state"] == "succeeded")

        await eventually(now)
    assert (await post(projected, "k-1")).json()["result"] == 3
    other = await post(projected, "k-2")
    assert other.json()["id"] != first.json()["id"]
    await rig.read_to_end()
    assert rig.steps(first.json()["id"]) == ["submitted", "succeeded"]


async def test_repeat_for_pruned_job_is_gone(projected: Api, rig: Rig, view: Store) -> None:
    first = await post(projected, "k")
    async with rig.worker(add):
        await rig.outcome(first.json()["id"])
        await eventually(lambda: (job := view.job(first.json()["id"])) is not None and job.final)
    await eventually(lambda: pruned(view, first.json()["id"]), what="the job is pruned")
    for answer in (await projected.client.get(first.headers["location"]), await post(projected, "k")):
        problem(answer, 410, "job-gone")


def pruned(view: Store, job_id: str) -> bool:
    view.retention.prune("p1", datetime.now(UTC) + timedelta(days=1))
    return bool(view.retention.gone([job_id]))


async def test_repeat_before_fold_returns_submitted_job(served: Api, view: Store) -> None:
    body = ADD | {"delay": 20, "labels": {"a": "b"}}
    first, again = await post(served, "k", body), await post(served, "k", body)
    assert again.status_code == 202
    assert again.json() == first.json()
    assert first.json()["state"] == "scheduled"
    assert [row["accepted"] for row in rows(view)] == [True]


async def test_different_submission_under_key_is_refused(served: Api, rig: Rig) -> None:
    first = await post(served, "k")
    for other in (ADD | {"payload": {"x": 2}}, ADD | {"timeout": 5}, {"type": "keep", "payload": {"data": []}}):
        delivered = problem(await post(served, "k", other), 422, "idempotency-key-reused")
        assert "repeat that one as it was, or take a new key" in delivered["detail"]
    assert (await post(served, "k")).json()["id"] == first.json()["id"]
    await eventually(rig.depth_is(1))


async def test_invalid_key_is_refused(served: Api, view: Store) -> None:
    for key in ("", '""', "a b", "k" * 256, '"open'):
        problem(await post(served, key), 422, "invalid-idempotency-key")
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    problem(await served.client.post("/jobs", json=ADD, headers=twice), 422, "invalid-idempotency-key")
    answer = await served.client.post("/jobs/batch", json=[ADD], headers={"Idempotency-Key": "a"})
    problem(answer, 422, "invalid-idempotency-key")
    in_body = await served.client.post("/jobs", json=ADD | {"idempotency_key": "a"})
    problem(in_body, 422, "invalid-submission")
    assert rows(view) == []


async def test_refused_submission_leaves_key_free(served: Api, view: Store) -> None:
    problem(await post(served, "k", ADD | {"type": "nope"}), 422, "unknown-job-type")
    problem(await post(served, "k", ADD | {"payload": {"x": "one"}}), 422, "invalid-payload")
    found = await batch(served, {"type": "nope", "payload": {}, "idempotency_key": "k"})
    assert found["refused"] == 1
    assert rows(view) == []
    assert (await post(served, "k")).status_code == 202


async def test_hundred_concurrent_submissions_make_one_job(projected: Api, rig: Rig) -> None:
    answers = await asyncio.gather(*(post(projected, "k") for _ in range(100)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    await eventually(rig.depth_is(1))
    await rig.read_to_end()
    assert [event.name for event in rig.events if isinstance(event, Submitted)] == ["submitted"]


async def test_keys_are_scoped_by_api_key(settings: Settings, rig: Rig, view: Store) -> None:
    """Clients with different API keys, and the application itself, have keys of their own."""
    ids = set()
    for key in (None, "first-api-key", "second-api-key"):
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with api(settings.model_copy(update={"api_key": key}), headers=headers) as served:
            ids.add((await post(served, "k")).json()["id"])
            ids.add((await post(served, "k")).json()["id"])
    async with jobtape.lifespan(job_types=[add, place], settings=settings):
        await eventually(lambda: running_producer().watch.tape_fault is None)
        options = jobtape.Options(idempotency_key="k")
        job = await add.submit_with(options, 1, y=2)
        assert (await add.submit_with(options, 1, y=2)).id == job.id
        ids.add(job.id)
        with pytest.raises(IdempotencyKeyReused):
            await add.submit_with(options, 2)
        with pytest.raises(IdempotencyKeyInvalid):
            await add.submit_with(jobtape.Options(idempotency_key="a b"), 1)
    assert len(ids) == 4
    written = [row["scope"] for row in rows(view)]
    assert len(set(written)) == 4
    assert not any("api-key" in scope for scope in written)


async def test_only_keyed_submissions_need_database(
    broker_url: str, topology: Topology, rig: Rig, tmp_path: Any
) -> None:
    """Submissions with a key are 503, those without are accepted."""
    async with api(settings_for(broker_url, topology, f"sqlite:///{tmp_path}/none.db")) as served:
        problem(await post(served, "k"), 503, "view-unavailable")
        assert (await served.client.post("/jobs", json=ADD)).status_code == 202
        found = await batch(served, ADD, ADD | {"idempotency_key": "k"})
        assert [item["status"] for item in found["items"]] == ["accepted", "refused"]
        assert found["items"][1]["problem"]["status"] == 503
    await eventually(rig.depth_is(2))


async def test_old_keys_are_pruned(served: Api, view: Store) -> None:
    first = (await post(served, "old")).json()
    with view._database.writing() as connection:
        connection.execute(text("UPDATE idempotency SET at = at - 90000"))
    served.producer.idempotency._prune_at = 0.0
    assert (await post(served, "new")).status_code == 202
    await eventually(lambda: [row["key"] for row in rows(view)] == ["new"])
    assert (await post(served, "old")).json()["id"] != first["id"]


async def test_openapi_document_describes_keys(served: Api) -> None:
    document = (await served.client.get("/openapi.json")).json()
    post_jobs = document["paths"]["/jobs"]["post"]
    assert "Idempotency-Key" in [each["name"] for each in post_jobs["parameters"]]
    assert "idempotency-in-flight" in post_jobs["responses"]["409"]["content"]["application/problem+json"]["examples"]
    assert "idempotency_key" in document["components"]["schemas"]["BatchSubmission"]["properties"]
    assert "idempotency_key" not in document["components"]["schemas"]["Submission"]["properties"]
