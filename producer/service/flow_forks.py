"""Forks a flow: makes the order of a new flow that takes the results of an earlier one."""

import asyncio
from collections import Counter
from typing import Any

from jobtape.producer.service.errors import JobGone
from jobtape.producer.service.ids import utc_now
from jobtape.producer.service.service import JobService
from jobtape.producer.service.submission.order_check import forked_order
from jobtape.schemas.flows.flow import RecordedFlow, child_id
from jobtape.schemas.job import Job, JobState, Order
from jobtape.view.store import Store


async def fork_order(service: JobService, job: Job, begin: str, payload: dict[str, Any] | None) -> Order:
    """Return the order of a fork of the flow ``job``, which runs anew from the node ``begin`` on.

    What has succeeded before that, or in other branches, when the view has read the tape up to now, is taken.
    ``payload``: that of ``begin`` instead of its own. Raises PayloadInvalid, PayloadTooLarge, JobGone if jobs of the
    flow are not kept any more, ViewBehind and ViewUnavailable.
    """
    await service.job_after_barrier(job.id)
    as_of, taken = await service.read(_succeeded, service.store, job)
    return await asyncio.to_thread(
        forked_order, job, begin, payload, taken, as_of, service.job_types, service.limits, utc_now()
    )


def _succeeded(store: Store, job: Job) -> tuple[int, Counter[str]]:
    """Return the last cursor of the view, and the number of the jobs of each node that had succeeded by then."""
    as_of = store.committed.reach().head
    found = store.flows.succeeded_then(job.id, as_of)
    flow = RecordedFlow.model_validate(job.payload)
    # Retention removes the jobs of a flow when it has ended, so one that is gone shows that others may be gone too.
    if store.retention.gone([child_id(job, name, item) for name in flow.nodes for item in (None, 0)]):
        raise JobGone(f"jobs of the flow {job.id} are not kept any more (JOBTAPE_JOB_RETENTION): submit a new flow")
    return as_of, Counter(each.node for each in found if each.state is JobState.SUCCEEDED)
