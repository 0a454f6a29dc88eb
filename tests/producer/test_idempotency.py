"""One key, one job: repeats, other payloads, leases that run out, keys in a batch."""

import asyncio
from datetime import datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import text

import jobtape
from jobtape import running
from jobtape.producer import idempotency
from jobtape.producer.ids import new_job_id
from jobtape.producer.refusals import IdempotencyKeyInvalid, IdempotencyKeyReused
from jobtape.schemas.events import Submitted
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.view.store import KeyedSubmission, Store
from tests.broker.proxy import Proxy
from tests.conftest import MakeTopology
from tests.consumer.rig import Rig
from tests.producer.jobs import add, place
from tests.producer.serving import Api, api, problem, settings_for
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

ADD: dict[str, Any] = {"type": "add", "payload": {"x": 1, "y": 2}}


async def post(served: Api, key: str, body: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
    return await served.client.post("/jobs", json=body or ADD, headers={"Idempotency-Key": key}, **more)


async def batch(served: Api, *items: dict[str, Any]) -> dict[str, Any]:
    answer = await served.client.post("/jobs/batch", json=list(items))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def rows(store: Store) -> list[Any]:
    with store._database.reading() as connection:
        return list(connection.execute(text("SELECT * FROM idempotency ORDER BY key")).mappings().all())


def expire(store: Store, *, accepted: bool | None = None) -> None:
    """As if the leases had run out; ``accepted`` False: and as if the marks had never been made."""
    with store._database.writing() as connection:
        connection.execute(text("UPDATE idempotency SET lease_until = 1"))
        if accepted is False:
            connection.execute(text("UPDATE idempotency SET accepted = :no"), {"no": False})


def rename(store: Store, table: str, name: str) -> None:
    """Whoever wants the table gets an error of the database."""
    with store._database.writing() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO {name}"))


def abandon(store: Store, key: str, job: dict[str, Any], *, lease: float = 30.0, scope: str = "api") -> KeyedSubmission:
    """As if an API had died behind the row of the submission that ``job`` (another one, accepted) came of."""
    with store._database.reading() as connection:
        digest = connection.execute(
            text("SELECT digest FROM idempotency WHERE job_id = :id"), {"id": job["id"]}
        ).scalar_one()
    row = KeyedSubmission(key, digest, new_job_id(), _submitted_at(job))
    store.claim_keys(scope, f"dead-{key}", [row], lease)
    return row


def _submitted_at(job: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(job["submitted_at"])


async def test_a_repeat_is_the_same_job_as_it_is_now(kept: Api, rig: Rig) -> None:
    first = await post(kept, "k-1")
    assert first.status_code == 202, first.text
    again = await post(kept, '"k-1"', {"payload": {"y": 2, "x": 1}, "type": "add", "queue": None})
    assert again.status_code == 202
    assert again.headers["location"] == first.headers["location"]
    assert again.json()["id"] == first.json()["id"]
    async with rig.worker(add):
        await rig.outcome(first.json()["id"])
        await kept.client.get(first.headers["location"])  # the view has it

        async def now() -> bool:
            return bool((await post(kept, "k-1")).json()["state"] == "succeeded")

        await eventually(now)
    assert (await post(kept, "k-1")).json()["result"] == 3
    other = await post(kept, "k-2")
    assert other.json()["id"] != first.json()["id"]
    assert rig.names(first.json()["id"]) == ["submitted", "succeeded"]


async def test_what_the_view_does_not_have_yet_is_what_was_submitted(served: Api, view: Store) -> None:
    body = ADD | {"delay": 20, "labels": {"a": "b"}}
    first, again = await post(served, "k", body), await post(served, "k", body)
    assert again.status_code == 202
    assert again.json() == first.json()
    assert first.json()["state"] == "scheduled"
    assert [row["accepted"] for row in rows(view)] == [True]


async def test_another_submission_under_the_key(served: Api, rig: Rig) -> None:
    first = await post(served, "k")
    for other in (ADD | {"payload": {"x": 2}}, ADD | {"timeout": 5}, {"type": "keep", "payload": {"data": []}}):
        told = problem(await post(served, "k", other), 422, "idempotency-key-reused")
        assert "repeat that one as it was, or take a new key" in told["detail"]
    assert (await post(served, "k")).json()["id"] == first.json()["id"]
    await eventually(lambda: rig.events)
    assert await rig.depth() == 1


async def test_what_is_no_key(served: Api, view: Store) -> None:
    for key in ("", '""', "a b", "k" * 256, '"open'):
        problem(await post(served, key), 422, "invalid-idempotency-key")
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    problem(await served.client.post("/jobs", json=ADD, headers=twice), 422, "invalid-idempotency-key")
    answer = await served.client.post("/jobs/batch", json=[ADD], headers={"Idempotency-Key": "a"})
    problem(answer, 422, "invalid-idempotency-key")
    in_body = await served.client.post("/jobs", json=ADD | {"idempotency_key": "a"})
    problem(in_body, 422, "invalid-submission")
    assert rows(view) == []


async def test_what_is_refused_leaves_no_row(served: Api, view: Store) -> None:
    problem(await post(served, "k", ADD | {"type": "nope"}), 422, "unknown-job-type")
    problem(await post(served, "k", ADD | {"payload": {"x": "one"}}), 422, "invalid-payload")
    found = await batch(served, {"type": "nope", "payload": {}, "idempotency_key": "k"})
    assert found["refused"] == 1
    assert rows(view) == []
    assert (await post(served, "k")).status_code == 202


async def test_a_hundred_at_once(kept: Api, rig: Rig) -> None:
    answers = await asyncio.gather(*(post(kept, "k") for _ in range(100)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await eventually(rig.depth) == 1
    assert [event.name for event in rig.events if isinstance(event, Submitted)] == ["submitted"]


async def test_the_first_is_in_flight(served: Api, view: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waited for; 409 when it takes too long; answered as soon as it has its outcome."""
    monkeypatch.setattr(idempotency, "WAIT", 0.4)
    done = (await post(served, "done")).json()
    row = abandon(view, "k", done)
    answer = await post(served, "k")
    assert row.job_id in problem(answer, 409, "idempotency-in-flight")["detail"]
    assert int(answer.headers["retry-after"]) >= 1
    monkeypatch.setattr(idempotency, "WAIT", 20.0)
    repeats = [asyncio.create_task(post(served, "k")) for _ in range(5)]
    await eventually(lambda: served.producer.idempotency._waiting == 5)
    view.settle_keys("other", accepted=[row.job_id])
    assert {(await repeat).json()["id"] for repeat in repeats} == {row.job_id}
    assert served.producer.idempotency._waiting == 0


async def test_those_who_wait_are_bounded(served: Api, view: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "WAIT", 0.5)
    monkeypatch.setattr(idempotency, "MAX_WAITING", 3)
    abandon(view, "k", (await post(served, "done")).json())
    answers = await asyncio.gather(*(post(served, "k") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [409] * 3 + [503] * 5
    assert served.producer.idempotency._waiting == 0


async def test_the_row_alone_was_written(kept: Api, view: Store, rig: Rig) -> None:
    """Its process died before the publish: a repeat publishes the event that would have been, once."""
    done = (await post(kept, "done", ADD | {"delay": 20})).json()
    row = abandon(view, "k", done, lease=0.0)
    answers = await asyncio.gather(*(post(kept, "k", ADD | {"delay": 20}) for _ in range(10)))
    assert {(answer.status_code, answer.json()["id"]) for answer in answers} == {(202, row.job_id)}
    await eventually(lambda: rig.of(row.job_id))
    (event,) = rig.of(row.job_id)
    assert isinstance(event, Submitted)
    (other,) = rig.of(done["id"])
    assert isinstance(other, Submitted)
    assert event.time == row.time
    assert event.data == other.data, "the order too is the one of that time"


async def test_only_the_mark_was_missing(kept: Api, view: Store, rig: Rig) -> None:
    """Its process died before the mark: a repeat finds the job behind a barrier, and publishes nothing."""
    first = (await post(kept, "k")).json()
    expire(view, accepted=False)
    assert (await post(kept, "k")).json()["id"] == first["id"]
    assert [row["accepted"] for row in rows(view)] == [True]
    assert rig.names(first["id"]) == ["submitted"]
    assert await rig.depth() == 1


async def test_without_a_projector_nobody_takes_over(served: Api, view: Store, rig: Rig) -> None:
    """Whether the first publish came to the tape cannot be told. The next one may try at once."""
    row = abandon(view, "k", (await post(served, "done")).json(), lease=0.0)
    served.producer._barriers._timeout = 0.3
    for _ in range(2):
        problem(await post(served, "k"), 503, "view-behind")
    assert rig.of(row.job_id) == []
    async with rig.projector(view):
        assert (await post(served, "k")).json()["id"] == row.job_id


async def test_ids_of_keys_are_never_404(kept: Api, view: Store) -> None:
    done = (await post(kept, "done")).json()
    row = abandon(view, "k", done, lease=0.0)
    missing = f"{row.job_id[:-4]}0000"
    problem(await kept.client.get(f"/jobs/{missing}"), 404, "job-not-found")
    told = problem(await kept.client.get(f"/jobs/{row.job_id}"), 503, "view-behind")
    assert "repeat it under the same key" in told["detail"]
    assert (await post(kept, "k")).status_code == 202
    assert (await kept.client.get(f"/jobs/{row.job_id}")).json()["state"] == "queued"


async def test_an_id_made_long_before_its_publish_is_no_false_404(kept: Api, view: Store, rig: Rig) -> None:
    """A miss of an old id is a 404 at once, unless a key stands for it: then it is looked for behind a barrier."""
    done = (await post(kept, "done")).json()
    assert (await kept.client.get(f"/jobs/{done['id']}")).status_code == 200
    problem(await kept.client.get(f"/jobs/{new_job_id()}"), 404, "job-not-found")  # a barrier has passed
    with view._database.writing() as connection:
        digest = connection.execute(text("SELECT digest FROM idempotency")).scalar_one()
    old = KeyedSubmission("k", digest, "01890000-0000-7000-8000-000000000001", _submitted_at(done))
    view.claim_keys("api", "dead", [old], 0.0)
    assert kept.producer._barriers.settled(old.job_id)
    assert (await post(kept, "k")).json()["id"] == old.job_id
    assert (await kept.client.get(f"/jobs/{old.job_id}")).status_code == 200


async def test_scopes(settings: Settings, rig: Rig, view: Store) -> None:
    """Clients with different API keys, and the application itself, do not get in each other's way."""
    ids = set()
    for key in (None, "first-api-key", "second-api-key"):
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with api(settings.model_copy(update={"api_key": key}), headers=headers) as served:
            ids.add((await post(served, "k")).json()["id"])
            ids.add((await post(served, "k")).json()["id"])
    async with jobtape.lifespan(job_types=[add, place], settings=settings):
        await eventually(lambda: running.producer().watch.tape_trouble is None)
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


async def test_a_batch(kept: Api, view: Store, rig: Rig) -> None:
    single = (await post(kept, "single")).json()
    dead = abandon(view, "dead", single, lease=0.0)
    busy = abandon(view, "busy", single)
    other = {"type": "add", "payload": {"x": 9}}
    items = [
        ADD,
        ADD | {"idempotency_key": "new"},
        ADD | {"idempotency_key": "single"},
        ADD | {"idempotency_key": "new"},
        other | {"idempotency_key": "new"},
        other | {"idempotency_key": "single"},
        ADD | {"idempotency_key": "dead"},
        ADD | {"idempotency_key": "busy"},
        ADD | {"idempotency_key": "a b"},
        ADD | {"type": "nope", "idempotency_key": "late"},
        other | {"idempotency_key": "late"},
    ]
    for _ in range(2):
        found = await batch(kept, *items)
        shown = [
            (item["status"], (item.get("problem") or {}).get("type", "").rpartition(":")[2]) for item in found["items"]
        ]
        assert shown == [
            ("accepted", ""),
            ("accepted", ""),
            ("accepted", ""),
            ("accepted", ""),
            ("refused", "idempotency-key-reused"),
            ("refused", "idempotency-key-reused"),
            ("accepted", ""),
            ("unknown", ""),
            ("refused", "invalid-submission"),
            ("refused", "unknown-job-type"),
            ("accepted", ""),
        ]
        ids = [item.get("id") for item in found["items"]]
        assert ids[1] == ids[3]
        assert (ids[2], ids[6], ids[7]) == (single["id"], dead.job_id, busy.job_id)
    # The one without a key twice; under keys: single, new, dead and late once.
    await eventually(rig.depth_is(6))
    assert len([event for event in rig.events if isinstance(event, Submitted)]) == 6
    assert (await post(kept, "new")).json()["id"] == ids[1], "a key means the same in both"


async def test_a_batch_whose_takeover_cannot_look(served: Api, view: Store) -> None:
    served.producer._barriers._timeout = 0.3
    row = abandon(view, "dead", (await post(served, "done")).json(), lease=0.0)
    found = await batch(served, ADD, ADD | {"idempotency_key": "dead"})
    assert [item["status"] for item in found["items"]] == ["accepted", "unknown"]
    assert found["items"][1]["id"] == row.job_id


async def test_without_the_database(broker_url: str, topology: Topology, rig: Rig, tmp_path: Any) -> None:
    """What has a key is 503; what has none is accepted."""
    async with api(settings_for(broker_url, topology, f"sqlite:///{tmp_path}/none.db")) as served:
        problem(await post(served, "k"), 503, "view-unavailable")
        assert (await served.client.post("/jobs", json=ADD)).status_code == 202
        found = await batch(served, ADD, ADD | {"idempotency_key": "k"})
        assert [item["status"] for item in found["items"]] == ["accepted", "refused"]
        assert found["items"][1]["problem"]["status"] == 503
    assert await eventually(rig.depth) == 2


async def test_no_confirm_in_time(broker_url: str, make_topology: MakeTopology, sqlite_url: str, view: Store) -> None:
    """The outcome is unknown; the row stays as it is, and a repeat finds the job that was published all the same."""
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
            assert [event.name for event in rig.of(row["job_id"]) if isinstance(event, Submitted)] == ["submitted"]


async def test_the_mark_cannot_be_made(
    broker_url: str, topology: Topology, rig: Rig, sqlite_url: str, view: Store
) -> None:
    """The database goes away between publish and mark: the job is accepted, and told so; a repeat marks it."""
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
    assert rig.names(first.json()["id"]) == ["submitted"]


async def test_old_keys_are_forgotten(served: Api, view: Store) -> None:
    first = (await post(served, "old")).json()
    with view._database.writing() as connection:
        connection.execute(text("UPDATE idempotency SET at = at - 90000"))
    served.producer.idempotency._prune_at = 0.0
    assert (await post(served, "new")).status_code == 202
    await eventually(lambda: [row["key"] for row in rows(view)] == ["new"])
    assert (await post(served, "old")).json()["id"] != first["id"]


async def test_what_the_openapi_document_says(served: Api) -> None:
    document = (await served.client.get("/openapi.json")).json()
    post_jobs = document["paths"]["/jobs"]["post"]
    assert [each["name"] for each in post_jobs["parameters"]] == ["Idempotency-Key"]
    assert "idempotency-in-flight" in post_jobs["responses"]["409"]["content"]["application/problem+json"]["examples"]
    assert "idempotency_key" in document["components"]["schemas"]["BatchSubmission"]["properties"]
    assert "idempotency_key" not in document["components"]["schemas"]["Submission"]["properties"]
