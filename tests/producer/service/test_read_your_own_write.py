"""An accepted job is found at any process, however far behind the view is; 404 only when that is certain."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from uuid_utils import uuid7

from jobtape.schemas import events, ids
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.consumer.installation import Rig, order_event
from tests.producer.jobs import add
from tests.producer.running_api import Api, api, problem, settings_for
from tests.waiting import within

pytestmark = pytest.mark.anyio

OLD = ids.first_id_at(datetime.now(UTC) - timedelta(days=1))


async def test_accepted_job_is_found_by_another_process(
    rig: Rig, store: Store, broker_url: str, database_url: str
) -> None:
    settings = settings_for(broker_url, rig.topology, database_url)
    async with rig.projector(store), api(settings) as here, api(settings) as there:
        for n in range(20):
            job = await here.submit(x=n)
            answer = await there.client.get(f"/jobs/{job['id']}")
            assert answer.status_code == 200, answer.text
            found = answer.json()
            assert found.pop("cursor") is not None
            job.pop("cursor")
            assert found == job


async def test_hundred_concurrent_reads_find_their_jobs(projected: Api) -> None:
    async def submit_and_read(n: int) -> None:
        job = await projected.submit(x=n)
        answer = await projected.client.get(f"/jobs/{job['id']}")
        assert answer.status_code == 200, answer.text
        assert (await projected.client.get(f"/jobs/{uuid7()}")).status_code == 404

    await asyncio.gather(*(submit_and_read(n) for n in range(100)))


async def test_unknown_id_is_view_behind_without_projector(settings: Settings, rig: Rig, view: Store) -> None:
    hurried = settings.model_copy(update={"read_timeout": 0.5})
    async with api(hurried) as served:
        job = await served.submit()
        with within(10):
            for path in (f"/jobs/{job['id']}", f"/jobs/{job['id']}/events", f"/jobs/{OLD}", f"/jobs/{uuid4()}"):
                problem(await served.client.get(path), 503, "view-behind")
    async with api(settings) as served, rig.projector(view):
        assert (await served.client.get(f"/jobs/{job['id']}")).status_code == 200


async def test_old_and_foreign_ids_are_404_without_new_barrier(projected: Api, rig: Rig) -> None:
    problem(await projected.client.get(f"/jobs/{uuid7()}"), 404, "job-not-found")  # the first barrier
    barrier = projected.producer._barrier._barrier
    number = barrier._number
    for job_id in (OLD, str(uuid4()), "00000000-0000-0000-0000-000000000000"):
        problem(await projected.client.get(f"/jobs/{job_id}"), 404, "job-not-found")
        problem(await projected.client.get(f"/jobs/{job_id}/events"), 404, "job-not-found")
    assert barrier._number == number
    problem(await projected.client.get(f"/jobs/{uuid7()}"), 404, "job-not-found")
    assert barrier._number == number + 1


async def test_job_without_submitted_is_found(projected: Api, rig: Rig) -> None:
    order = order_event(rig.topology, "add", {"x": 1})
    started = events.Started(
        id=ids.attempt_event_id(order.subject, 1, 1, "started", "e1"),
        source=rig.topology.source,
        subject=order.subject,
        time=datetime.now(UTC),
        data=events.StartedData(job_type="add", run=1, attempt=1, execution="e1", worker="w1"),
    )
    await rig.publisher.publish(started)
    alone = (await projected.client.get(f"/jobs/{order.subject}")).json()
    assert (alone["state"], alone["payload"], alone["submitted_at"]) == ("running", None, None)
    assert projected.producer._barrier._barrier._number == 1  # a barrier has passed before this answer
    await rig.publisher.publish(order)
    whole = (await projected.client.get(f"/jobs/{order.subject}")).json()
    assert (whole["state"], whole["payload"]) == ("running", {"x": 1})


async def test_submissions_work_without_database_and_reads_are_503(
    settings: Settings, rig: Rig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nowhere = f"sqlite:///{tmp_path_factory.mktemp('none')}/none/view.db"
    async with api(settings.model_copy(update={"database_url": nowhere}), add) as served:
        job = await served.submit()
        for path in (f"/jobs/{job['id']}", "/jobs", f"/jobs/{job['id']}/events"):
            assert "jobtape init" in problem(await served.client.get(path), 503, "view-unavailable")["detail"]
