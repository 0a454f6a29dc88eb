"""``POST /jobs/{id}/cancel``."""

import asyncio
from functools import partial

import pytest

from jobtape.view.store import Store
from tests.consumer import jobs as handlers
from tests.consumer.installation import Rig
from tests.producer import jobs
from tests.producer.running_api import Api, problem
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def state_of(api: Api, job_id: str) -> str:
    """Return the state that a GET shows."""
    return str((await api.client.get(f"/jobs/{job_id}")).json()["state"])


async def test_cancel_waiting_job_is_repeatable(projected: Api, rig: Rig) -> None:
    waiting = await projected.submit(x=1)
    later = (await projected.client.post("/jobs", json={"type": "add", "payload": {"x": 1}, "delay": 20})).json()
    for job in (waiting, later):
        answer = await projected.client.post(f"/jobs/{job['id']}/cancel")
        assert (answer.status_code, answer.json()["id"]) == (202, job["id"]), answer.text
        assert answer.json()["state"] == job["state"], "the response does not promise a cancellation"
        assert int(answer.headers["retry-after"]) > 0
        await eventually(partial(_is, projected, job["id"], "cancelled"))
        repeated = await projected.client.post(f"/jobs/{job['id']}/cancel")
        assert (repeated.status_code, repeated.json()["state"]) == (202, "cancelled")
        await rig.read_to_end()
        assert rig.names(job["id"]) == ["submitted", "cancelled"]
        event = rig.of(job["id"])[1]
        assert event.id == f"{job['id']}/1/cancelled"
        assert (event.data.run, event.data.attempt, event.data.job_type) == (1, 1, "add")
    assert (await projected.client.get(f"/jobs/{waiting['id']}")).json()["finished_at"] is not None


async def test_cancel_before_view_knows_job(projected: Api, rig: Rig) -> None:
    answers = await asyncio.gather(*(_submit_and_cancel(projected, x) for x in range(20)))
    for job_id in answers:
        await eventually(partial(_is, projected, job_id, "cancelled"))
    async with rig.worker(jobs.add):
        last = await projected.submit(x=1)
        await rig.outcome(last["id"])
    assert not any("succeeded" in rig.names(job_id) for job_id in answers)


async def _submit_and_cancel(api: Api, x: int) -> str:
    job_id = str((await api.submit(x=x))["id"])
    answers = await asyncio.gather(*(api.client.post(f"/jobs/{job_id}/cancel") for _ in range(3)))
    assert {answer.status_code for answer in answers} == {202}
    return job_id


async def test_cancel_ended_job_is_conflict(projected: Api, rig: Rig) -> None:
    async with rig.worker(jobs.add, handlers.boom):
        done = await projected.submit(x=1)
        failed = await rig.submit("boom")
        for job_id, state in ((done["id"], "succeeded"), (failed, "failed")):
            await rig.outcome(job_id)
            await eventually(partial(_is, projected, job_id, state))
            body = problem(await projected.client.post(f"/jobs/{job_id}/cancel"), 409, "job-final")
            assert body["state"] == state
            assert state in body["detail"]
            await rig.read_to_end()
            assert "cancelled" not in rig.names(job_id)


@pytest.mark.parametrize("job_id", ["01890000-0000-7000-8000-000000000000", "019fffff-0000-4000-8000-000000000000"])
async def test_cancel_unknown_job(projected: Api, job_id: str) -> None:
    problem(await projected.client.post(f"/jobs/{job_id}/cancel"), 404, "job-not-found")


async def test_cancel_bad_requests(served: Api) -> None:
    problem(await served.client.post("/jobs/nonsense/cancel"), 422, "invalid-job-id")
    problem(await served.client.get("/jobs/01890000-0000-7000-8000-000000000000/cancel"), 405, "method-not-allowed")
    url = "/jobs/01890000-0000-7000-8000-000000000000/cancel?force=1"
    problem(await served.client.post(url), 422, "invalid-query")


async def test_cancel_without_tape(projected: Api, rig: Rig, view: Store) -> None:
    job = await projected.submit(x=1)
    await eventually(lambda: _is(projected, job["id"], "queued"))
    await rig.delete_tape()
    await eventually(lambda: projected.producer.watch.tape_fault, what="the API notices that the tape is missing")
    problem(await projected.client.post(f"/jobs/{job['id']}/cancel"), 503, "tape-missing")


async def test_cancel_stream_is_recreated(projected: Api, rig: Rig) -> None:
    from jobtape.broker import declare

    connection = await rig.link.connection()
    async with await connection.channel() as channel:
        await channel.queue_delete(rig.topology.cancels.name)
    await eventually(lambda: declare.depth(connection, rig.topology.cancels.name), what="the stream exists again")


async def _is(api: Api, job_id: str, state: str) -> bool:
    return await state_of(api, job_id) == state
