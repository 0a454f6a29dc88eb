"""A worker that stops, and one that must not start."""

import pytest

from jobtape.consumer.worker.worker import Worker
from jobtape.jobs import JobType
from jobtape.schemas.errors import JobTypeInvalid
from jobtape.schemas.topology import Topology
from tests.broker.proxy import Proxy
from tests.consumer import jobs
from tests.consumer.installation import Rig, running
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closed_gate")]


async def test_stop_finishes_running_jobs_and_gives_back_waiting_ones(rig: Rig) -> None:
    async with rig.worker(jobs.ahold, jobs.hold, concurrency=2) as worker:
        ends = [await rig.submit(name) for name in ("hold", "ahold") * 4]
        await eventually(lambda: len(jobs.calls) == 2)
        rig.stop(worker.name)
        await eventually(rig.depth_is(6), what="waiting jobs are back on their queue")
        assert worker.fault == "draining"
        jobs.gate.set()
        for job_id in ends[:2]:
            assert (await rig.outcome(job_id)).name == "succeeded"
    assert sorted(jobs.calls) == sorted(ends[:2])
    assert await rig.depth() == 6
    async with rig.worker(jobs.ahold, jobs.hold):
        for job_id in ends:
            await rig.outcome(job_id)
    assert sorted(jobs.calls) == sorted(ends), "each ran once"


async def test_job_that_exceeds_grace_time_goes_back(rig: Rig) -> None:
    async with rig.worker(jobs.ahold, jobs.hold, concurrency=2, grace=0.3):
        ends = [await rig.submit(name) for name in ("hold", "ahold")]
        await eventually(lambda: len(jobs.calls) == 2)
    await eventually(rig.depth_is(2), what="both are back")
    assert all(rig.names(job_id)[-1] in ("submitted", "started") for job_id in ends)
    jobs.gate.set()
    async with rig.worker(jobs.ahold, jobs.hold):
        for job_id in ends:
            assert (await rig.outcome(job_id)).name == "succeeded"


async def test_stop_under_load_loses_no_delivery(rig: Rig) -> None:
    """Deliveries still arrive while the worker drains."""
    async with rig.worker(jobs.nap, concurrency=20):
        ends = [await rig.submit("nap", {"seconds": 0.001}) for _ in range(300)]
        await eventually(lambda: sum(event.name == "succeeded" for event in rig.events) > 20)
    async with rig.worker(jobs.nap, concurrency=20):
        for job_id in ends:
            await rig.outcome(job_id)
    assert await rig.depth() == 0


async def test_stop_without_broker_finishes_running_job(rig: Rig) -> None:
    """The outcome is published when the broker is back within the grace time."""
    async with Proxy(rig.url) as proxy:
        direct, rig.url = rig.url, proxy.url
        async with rig.worker(jobs.ahold, grace=20) as worker:
            rig.url = direct
            job_id = await rig.submit("ahold")
            await eventually(lambda: jobs.calls)
            proxy.refuse = True
            proxy.cut()
            await eventually(lambda: worker.fault is not None)
            rig.stop(worker.name)
            jobs.gate.set()
            proxy.refuse = False
        assert (await rig.outcome(job_id)).name == "succeeded"


def worker_of(topology: Topology, job_type: JobType, *, grace: float) -> Worker:
    """Return a worker without a broker."""
    url = "amqp://guest:guest@127.0.0.1:1/"
    known = {job_type.name: job_type}
    return Worker(url, topology, known, concurrency=1, grace=grace, max_result=1000, ack_timeout=1800, name="w")


async def test_worker_stops_without_broker(topology: Topology) -> None:
    worker = worker_of(topology, jobs.add, grace=1)
    async with running(worker):
        await eventually(lambda: (worker.fault or "").startswith("no broker"))
    assert "guest:guest" not in str(worker.fault)


def test_timeout_beyond_acknowledgement_timeout_is_refused(topology: Topology) -> None:
    with pytest.raises(JobTypeInvalid, match=r"long may run 900 s, but only 865 s fit .*JOBTAPE_ACK_TIMEOUT"):
        worker_of(topology, jobs.long, grace=30)
