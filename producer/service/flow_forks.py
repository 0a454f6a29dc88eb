"""Forks a flow: makes the order of a new flow that takes the results of an earlier one."""

import asyncio
from collections import Counter
from typing import Any

from jobtape.producer.service.errors import JobGone
from jobtape.producer.service.ids import utc_now
from jobtape.producer.service.service import JobService
from jobtape.producer.service.submission.order_check import forked_order
from jobtape.schemas.flows.flow import Fork, RecordedFlow, child_id
from jobtape.schemas.job import Job, Order
from jobtape.view.store import Store


async def fork_order(service: JobService, job: Job, begin: str, payload: dict[str, Any] | None) -> Order:
    """Return the order of a fork of the flow ``job``, which runs again from the node ``begin`` on.

    What has succeeded before that, or in other branches, when the view has read the tape up to now, is taken.
    ``payload``: that of ``begin`` instead of its own. Raises PayloadInvalid, PayloadTooLarge, JobGone if jobs of the
    flow are not kept any more, ViewBehind and ViewUnavailable.
    """
    await service.job_after_barrier(job.id)
    so_far = await service.read(_so_far, service.store, job)
    return await asyncio.to_thread(
        forked_order, job, begin, payload, so_far, service.job_types, service.limits, utc_now()
    )


def _so_far(store: Store, job: Job) -> Fork:
    """Return what a fork of the whole flow would take at the last cursor of the view."""
    as_of = store.committed.reach().head
    found = store.flows.succeeded_then(job.id, as_of)
    flow = RecordedFlow.model_validate(job.payload)
    # Retention removes the jobs of a flow when it has ended, so one that is gone shows that others may be gone too.
    if store.retention.gone([child_id(job, name, item) for name in flow.nodes for item in (None, 0)]):
        raise JobGone(f"jobs of the flow {job.id} are not kept any more (JOBTAPE_JOB_RETENTION): submit a new flow")
    then = store.past.job(job.id, as_of)
    signals = () if then is None else tuple(name for name in then.signals or () if name in flow.signals)
    return Fork(flow=job.id, as_of=as_of, taken=Counter(each.node for each in found), signals=signals)
