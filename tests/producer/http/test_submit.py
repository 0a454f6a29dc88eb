"""One job accepted is one event on the tape and one message on its queue."""

import asyncio
from typing import Any

import pytest

import jobtape
from jobtape.producer.service.errors import PayloadTooLarge
from jobtape.schemas.errors import PayloadInvalid, SubmissionInvalid, TapeMissing, UnknownJobType
from jobtape.schemas.events import Submitted
from jobtape.schemas.job import JobState
from jobtape.schemas.submission import Submission
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from tests.consumer.installation import Rig
from tests.producer.jobs import add, place
from tests.producer.running_api import Api, api, problem, running_producer, serve
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

WITH_OPTIONS: dict[str, Any] = {
    "type": "add",
    "payload": {"x": 3, "y": 4},
    "queue": "orders",
    "timeout": 12.5,
    "labels": {"customer": "42", "ünï": ""},
    "correlation_id": "order-7",
}


async def test_accepted_job_is_one_event_and_one_message(served: Api, rig: Rig) -> None:
    answer = await served.client.post("/jobs", json={"type": "add", "payload": {"x": 3, "y": 4}})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert job["state"] == "queued"
    assert job["payload"] == {"x": 3, "y": 4}
    assert (job["run"], job["attempt"], job["max_attempts"], job["cursor"]) == (1, 1, 1, None)
    await eventually(lambda: rig.events, what="the event on the tape")
    (event,) = rig.events
    assert isinstance(event, Submitted)
    assert event.subject == job["id"]
    assert event.id == f"{job['id']}/1/submitted"
    assert event.source == rig.topology.source
    await eventually(rig.depth_is(1), what="the message is on the work queue")


async def test_submit_with_options(served: Api, rig: Rig) -> None:
    job = (await served.client.post("/jobs", json=WITH_OPTIONS)).json()
    (event,) = await eventually(lambda: rig.of(job["id"]))
    assert isinstance(event, Submitted)
    order = event.data.order
    assert order.model_dump(include=set(WITH_OPTIONS)) == WITH_OPTIONS
    assert event.correlationid == "order-7"
    assert await eventually(lambda: rig.depth("orders")) == 1
    assert await rig.depth("default") == 0


async def test_absent_options_are_those_of_job_type(served: Api, rig: Rig) -> None:
    body = {
        "type": "order.place",
        "payload": {"article": "pen"},
        "queue": None,
        "timeout": None,
        "correlation_id": None,
    }
    job = (await served.client.post("/jobs", json=body)).json()
    (event,) = await eventually(lambda: rig.of(job["id"]))
    assert isinstance(event, Submitted)
    assert (event.data.order.queue, event.data.order.timeout) == ("orders", 30.0)


async def test_content_type_with_charset(served: Api) -> None:
    for content_type in ("application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'):
        body = b'{"type": "add", "payload": {"x": 1}}'
        answer = await served.client.post("/jobs", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == 202, content_type


async def test_location_includes_prefix(settings: Settings, rig: Rig) -> None:
    import httpx

    from jobtape.app import create_app

    app = create_app(settings, [add])
    async with serve(app, root_path="/proxy") as port, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port}/jobs"
        answer = await eventually(lambda: _accepted(client, url), what="the API finds the tape")
        assert answer.headers["location"] == f"/proxy/jobs/{answer.json()['id']}"


async def _accepted(client: Any, url: str) -> Any:
    answer = await client.post(url, json={"type": "add", "payload": {"x": 1}})
    return answer if answer.status_code == 202 else None


async def test_submit_in_process(settings: Settings, rig: Rig) -> None:
    async with jobtape.lifespan(job_types=[add, place], settings=settings):
        await eventually(lambda: running_producer().watch.tape_fault is None)
        job = await add.submit(1, y=2)
        assert (job.state, job.payload, job.queue) == (JobState.QUEUED, {"x": 1, "y": 2}, "default")
        options = jobtape.Options(queue="orders", timeout=5, labels={"a": "b"}, correlation_id="c")
        other = await add.submit_with(options, 1)
        assert (other.queue, other.timeout, other.labels, other.correlation_id) == ("orders", 5, {"a": "b"}, "c")
        await eventually(lambda: len(rig.events) == 2)
    with pytest.raises(jobtape.JobtapeError):
        await add.submit(1)


async def test_invalid_submission_in_process_publishes_nothing(served: Api, rig: Rig) -> None:
    producer = served.producer
    with pytest.raises(UnknownJobType, match=r"add, keep, order\.place"):
        await producer.submit(Submission(type="nope", payload={}))
    with pytest.raises(PayloadInvalid) as invalid:
        await producer.submit(Submission(type="add", payload={"x": "one"}))
    assert [fault["loc"] for fault in invalid.value.errors] == [("x",)]
    for payload in ({"x": float("nan")}, {"x": 2**63}, {"x": "\x00"}):
        with pytest.raises(PayloadInvalid):
            await producer.submit(Submission(type="add", payload=payload))
    with pytest.raises(SubmissionInvalid, match="default, orders"):
        await producer.submit(Submission(type="add", payload={"x": 1}, queue="other"))
    with pytest.raises(SubmissionInvalid, match="865 s"):
        await producer.submit(Submission(type="add", payload={"x": 1}, timeout=886))
    with pytest.raises(PayloadTooLarge):
        await producer.submit(Submission(type="keep", payload={"data": ["a" * 2**20]}))
    assert await rig.depth() == 0


async def test_concurrent_submissions(served: Api, rig: Rig) -> None:
    jobs = await asyncio.gather(*(served.submit(x=n) for n in range(200)))
    assert len({job["id"] for job in jobs}) == 200
    await eventually(lambda: len(rig.events) == 200)

    async def depth() -> bool:
        return await rig.depth() == 200

    await eventually(depth)


async def test_submit_without_tape(settings: Settings, topology: Topology, broker_url: str) -> None:
    async with api(settings, add, ready=False) as served:
        await eventually(lambda: served.producer.watch.broker_fault is None)
        answer = await served.client.post("/jobs", json={"type": "add", "payload": {"x": 1}})
        assert "jobtape init" in problem(answer, 503, "tape-missing")["detail"]
        with pytest.raises(TapeMissing):
            await served.producer.submit(Submission(type="add", payload={"x": 1}))
        async with Rig(broker_url, topology) as rig:  # makes the tape
            assert await rig.depth() == 0
            await eventually(lambda: served.producer.watch.tape_fault is None, what="the API finds the tape")
            await served.submit()
