"""Submits flows without an API, and checks that each job of a flow ran once."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from uuid_utils import uuid7

from jobtape import JobType, Options
from jobtape.producer.service.submission.order_check import forked_order, order_for
from jobtape.schemas.events import Submitted, submitted
from jobtape.schemas.flows.flow import Fork
from jobtape.schemas.flows.submission import flow_submission
from jobtape.schemas.job import FINAL, Job
from jobtape.schemas.submission import Submission, read_submission
from jobtape.schemas.topology import work_key
from jobtape.settings import Settings
from jobtape.view.store import JobQuery, Store
from tests.consumer.installation import Rig
from tests.waiting import LIMIT, eventually


def flow_event(rig: Rig, types: Iterable[JobType], nodes: dict[str, Any], **more: Any) -> Submitted:
    """Return the event ``submitted`` of a flow with these nodes."""
    submission = read_submission(flow_submission({"nodes": nodes} | more), Submission)
    known = {each.name: each for each in types}
    order = order_for(submission, known, Settings().limits, datetime.now(UTC))
    return submitted(str(uuid7()), order, source=rig.topology.source, time=datetime.now(UTC))


async def put_flow(rig: Rig, types: Iterable[JobType], nodes: dict[str, Any], **more: Any) -> str:
    """Submit a flow and return its id."""
    event = flow_event(rig, types, nodes, **more)
    await rig.publisher.publish(event)
    return event.subject


async def put_job(rig: Rig, job_type: JobType, types: Iterable[JobType], **payload: Any) -> str:
    """Submit a job with its declared gates, and return its id."""
    submission = job_type.submission(Options(), **payload)
    order = order_for(submission, {each.name: each for each in types}, Settings().limits, datetime.now(UTC))
    event = submitted(str(uuid7()), order, source=rig.topology.source, time=datetime.now(UTC))
    await rig.publisher.publish(event, () if order.gates is not None else (work_key(order.queue),))
    return event.subject


async def put_fork(rig: Rig, store: Store, flow_id: str, begin: str, types: Iterable[JobType]) -> str:
    """Fork the flow from the node ``begin`` on, and return the id of the new one."""
    flow, as_of = store.job(flow_id), store.committed.reach().head
    assert flow is not None
    taken = Counter(job.node for job in store.flows.succeeded_then(flow_id, as_of))
    so_far = Fork(flow=flow_id, as_of=as_of, taken=taken)
    known = {each.name: each for each in types}
    order = forked_order(flow, begin, None, so_far, known, Settings().limits, datetime.now(UTC))
    event = submitted(str(uuid7()), order, source=rig.topology.source, time=datetime.now(UTC))
    await rig.publisher.publish(event)
    return event.subject


async def flow_ended(store: Store, flow_id: str, timeout: float = LIMIT, *, run: int = 1) -> Job:
    """Wait until a run of the flow has ended, and return the flow."""

    def condition() -> Job | None:
        job = store.job(flow_id)
        return job if job is not None and job.final and job.run == run else None

    return await eventually(condition, timeout, what=f"the flow {flow_id} ends: {store.job(flow_id)}")


def jobs_of(store: Store, flow_id: str, node: str | None = None) -> list[Job]:
    """Return the jobs of a flow, or of one node, by item."""
    found = store.list_jobs(JobQuery(flow=flow_id, node=node, limit=100_000))
    return sorted(found, key=lambda job: (job.node or "", job.item or 0))


async def flow_problems(rig: Rig, store: Store, flow_ids: Iterable[str]) -> list[str]:
    """Return what is wrong with flows that have ended: jobs that are open, or that were submitted under two ids, and
    runs with more than one outcome that counts.
    """
    await rig.read_to_end()
    problems: list[str] = []
    for flow_id in flow_ids:
        jobs = jobs_of(store, flow_id)
        places = Counter((job.node, job.item) for job in jobs)
        problems += [f"{flow_id}: {n} jobs of {place}" for place, n in places.items() if n > 1]
        problems += [f"{flow_id}: {job.node}/{job.item} is {job.state}" for job in jobs if job.state not in FINAL]
        on_tape = {
            event.subject
            for event in rig.events
            if isinstance(event, Submitted)
            and event.data.order.flow is not None
            and event.data.order.flow.id == flow_id
        }
        if on_tape != {job.id for job in jobs}:
            problems.append(f"{flow_id}: {len(on_tape)} jobs on the tape, {len(jobs)} in the view")
        assert UUID(flow_id).version == UUID(jobs[0].id).version == 7
    return problems
