"""Tests policies on Jobtape's queues: dropped jobs are placed again, and a full queue causes few copies on the tape."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobtape.broker import declare
from jobtape.consumer.projector.maintenance.dead_letters import drop_reason
from jobtape.producer.service.batches.batch import CHUNK, UNDER_WAY
from jobtape.schemas.errors import QueueFull
from jobtape.schemas.events import Deferred
from jobtape.schemas.job import JobState
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.consumer.projector.dispatch.test_job_placer import redriven
from tests.faults.policies import Policy, policies
from tests.namespaces import some_topology
from tests.producer.running_api import Api, api, problem, settings_for
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

pytestmark = pytest.mark.anyio

ADD = {"type": "add", "payload": {"x": 1, "y": 1}}


@asynccontextmanager
async def rig_under(node: PrivateNode, *given: Policy) -> AsyncIterator[Rig]:
    """Yield a rig whose namespace has these policies."""
    topology = some_topology()
    with policies(node, topology.namespace, given):
        try:
            async with Rig(node.url, topology) as rig:
                yield rig
        finally:
            await declare.remove_namespace(node.url, topology)


@asynccontextmanager
async def api_of(rig: Rig, tmp_path: Path) -> AsyncIterator[Api]:
    """Yield an API with the rig's namespace and the test's view."""
    async with api(settings_for(rig.url, rig.topology, f"sqlite:///{tmp_path / 'view.db'}")) as opened:
        yield opened


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=0.5)


def in_state(view: Store, state: JobState) -> int:
    return len(view.list_jobs(JobQuery(states=[state], limit=10_000)))


@pytest.mark.parametrize(
    "policy",
    [
        Policy({"message-ttl": 300}, on="run", operator=True),
        Policy({"message-ttl": 300, "dead-letter-exchange": "amq.fanout", "dead-letter-routing-key": "x"}),
    ],
    ids=["the work queues, by an operator policy", "all queues, with a dead-letter exchange"],
)
async def test_expired_jobs_are_placed_again_and_executed(node: PrivateNode, view: Store, policy: Policy) -> None:
    count = 40
    async with rig_under(node, policy) as rig, rig.projector(view):
        ids = [await rig.submit("add", {"x": n, "y": 1}) for n in range(count)]
        await eventually(lambda: in_state(view, JobState.SCHEDULED) == count, what="all have expired")
        async with rig.worker(jobs.add, concurrency=50):
            await eventually(lambda: in_state(view, JobState.SUCCEEDED) == count, what="all are done")
        report = await Checker(rig.url, rig.topology).check(view)
    assert report.problems == []
    assert {job.attempt for job in view.list_jobs(JobQuery(limit=10_000))} == {1}
    deferred = [event for event in rig.events if isinstance(event, Deferred)]
    assert {event.data.reason for event in deferred} == {"expired"}
    assert {event.subject for event in deferred} == set(ids)


@pytest.mark.parametrize(
    ("policy", "body"),
    [
        (Policy({"max-length": 2}, on="run"), ADD),
        (Policy({"max-length-bytes": 1000}, on="run", operator=True), ADD),
    ],
    ids=["max-length", "max-length-bytes by an operator policy"],
)
async def test_full_queue_defers_one_job_and_refuses_more(
    node: PrivateNode, view: Store, tmp_path: Path, policy: Policy, body: dict[str, object]
) -> None:
    async with rig_under(node, policy) as rig, rig.projector(view), api_of(rig, tmp_path) as served:
        accepted: list[dict[str, Any]] = []
        for n in range(40):
            answer = await served.client.post("/jobs", json=body, headers={"Idempotency-Key": f"k{n}"})
            if answer.status_code == 503:
                break
            accepted.append(answer.json())
        delivered = problem(answer, 503, "queue-full")
        assert f"the queue {rig.topology.namespace}.{policy.on}" in delivered["detail"]
        assert "nothing was recorded" in delivered["detail"]
        assert (accepted[-1]["state"], accepted[-1]["reason"]) == ("scheduled", "queue_full")
        assert {job["state"] for job in accepted[:-1]} == {"queued"}
        refused = accepted[-1]["id"]
        await eventually(lambda: rig.names(refused).count("deferred") >= 2, what="it is offered again")

        async with rig.worker(jobs.add):
            await eventually(lambda: in_state(view, JobState.SUCCEEDED) == len(accepted), what="all are done")
            assert (await served.client.post("/jobs", json=ADD)).status_code == 202
            await eventually(
                lambda: in_state(view, JobState.SUCCEEDED) == len(accepted) + 1, what="the last one is done"
            )
        report = await Checker(rig.url, rig.topology).check(view)
        assert (report.problems, report.repeated) == ([], 0)


async def test_submissions_succeed_when_a_limit_is_removed(node: PrivateNode, view: Store, tmp_path: Path) -> None:
    """RabbitMQ 3.10 keeps refusing publishes on a channel on which it has refused one."""
    async with rig_under(node) as rig, rig.projector(view), api_of(rig, tmp_path) as served:
        with policies(node, rig.topology.namespace, [Policy({"max-length": 1}, on="run")]):

            async def refused() -> bool:
                return (await served.client.post("/jobs", json=ADD)).status_code == 503

            await eventually(refused)

        async def accepted() -> bool:
            return (await served.client.post("/jobs", json=ADD)).status_code == 202

        await eventually(accepted, what="the queue accepts jobs, without a worker")


async def test_batch_is_accepted_for_other_queues(node: PrivateNode, view: Store, tmp_path: Path) -> None:
    topology = some_topology("default", "orders")
    with policies(node, topology.namespace, [Policy({"max-length": 1}, on="run.default")]):
        async with Rig(node.url, topology) as rig, rig.projector(view), api_of(rig, tmp_path) as served:

            async def full() -> bool:
                return (await served.client.post("/jobs", json=ADD)).status_code == 503

            await eventually(full)
            items = [ADD | {"idempotency_key": "k"}, ADD, *[ADD | {"queue": "orders"} for _ in range(5)]]
            found = (await served.client.post("/jobs/batch", json=items)).json()["items"]
            assert [item["status"] for item in found] == [*["refused"] * 2, *["accepted"] * 5]
            assert {item["problem"]["type"] for item in found[:2]} == {"urn:jobtape:problem:queue-full"}
        await declare.remove_namespace(node.url, topology)


async def test_large_batch_into_a_full_queue_is_refused_for_the_most_part(
    node: PrivateNode, view: Store, tmp_path: Path
) -> None:
    """What was under way when the queue refused work is deferred; nothing of the rest is published."""
    async with rig_under(node, Policy({"max-length": 1}, on="run")) as rig, rig.projector(view):
        async with api_of(rig, tmp_path) as served:
            items = (await served.client.post("/jobs/batch", json=[ADD] * 2000)).json()["items"]
        accepted = [item["id"] for item in items if item["status"] == "accepted"]
        refused = [item for item in items if item["status"] == "refused"]
        assert len(accepted) + len(refused) == len(items)
        assert len(accepted) <= CHUNK * (UNDER_WAY + 1)
        assert {item["problem"]["type"] for item in refused} == {"urn:jobtape:problem:queue-full"}
        await rig.read_to_end()
        assert {event.subject for event in rig.events} == set(accepted)
        assert max(rig.names(job_id).count("submitted") for job_id in accepted) <= 3


async def test_work_that_is_due_waits_for_a_full_queue(node: PrivateNode, view: Store) -> None:
    """The queue of a redriven run and of delayed jobs is full. One job at a time is offered to it."""
    async with rig_under(node, Policy({"max-length": 1}, on="run")) as rig, rig.projector(view):
        async with rig.worker(jobs.boom):
            job_id = await rig.submit("boom", max_attempts=1)
            await eventually(lambda: in_state(view, JobState.FAILED) == 1)
        for n in range(3):  # RabbitMQ refuses when the queue has more than its limit
            await rig.publisher.place(order_event(rig.topology, "add", {"x": n, "y": 1}))
        with pytest.raises(QueueFull):
            rig.publisher.check_room("default")
        due = [order_event(rig.topology, "add", {"x": n, "y": 1}, run_at=soon()) for n in range(100)]
        await asyncio.gather(*(rig.publisher.publish(event) for event in due))
        await rig.publisher.publish(redriven(job_id, 2, rig.topology.source))
        await eventually(lambda: sum(isinstance(event, Deferred) for event in rig.events) >= 4)
        assert sum(isinstance(event, Deferred) for event in rig.events) < 50, "few are offered"
        async with rig.worker(jobs.boom, jobs.add, concurrency=50):
            await eventually(lambda: rig.names(job_id).count("failed") == 2, 60, what="its second run has ended")
            await eventually(lambda: in_state(view, JobState.SUCCEEDED) == 103, 60, what="all are done")
        assert (await Checker(rig.url, rig.topology).check(view)).problems == []


async def test_jobs_of_an_expired_queue_are_placed_again(node: PrivateNode, view: Store) -> None:
    async with rig_under(node, Policy({"expires": 1000}, on="run")) as rig, rig.projector(view, rescue_after=1.0):
        job_id = await rig.submit("add", {"x": 1, "y": 1})
        connection = await rig.link.connection()
        work = rig.topology.work_queue("default").name

        async def deleted() -> bool:
            return await declare.depth(connection, work) is None

        await eventually(deleted)
        async with rig.worker(jobs.add):
            assert (await rig.outcome(job_id)).name == "succeeded"


async def test_missing_own_queues_are_declared_again(node: PrivateNode, view: Store) -> None:
    async with rig_under(node) as rig, rig.projector(view, rescue_after=1.0):
        connection = await rig.link.connection()
        lost = [rig.topology.dead_queue.name, rig.topology.cancels.name]
        channel = await connection.channel()
        async with channel:
            for name in lost:
                await channel.queue_delete(name)

        async def declared() -> bool:
            return all([await declare.depth(connection, name) is not None for name in lost])

        await eventually(declared)


def test_drop_reason_is_that_of_the_work_queue() -> None:
    topology = some_topology(namespace="ns")
    other = {"queue": "other.run", "reason": "expired"}
    assert drop_reason({"x-death": [other]}, topology) is None
    assert drop_reason({"x-death": [{"queue": "ns.run.a", "reason": "delivery_limit"}, other]}, topology) is None
    assert drop_reason({"x-death": [other, {"queue": "ns.run.a", "reason": "maxlen"}]}, topology) == "maxlen"
    assert drop_reason({"x-death": [{"queue": "ns.run.a", "reason": "rejected"}]}, topology) is None
    assert drop_reason({}, topology) is None
