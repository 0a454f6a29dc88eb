"""Faults that users of other libraries have reported, with flows of the same shape. Others are in the tests of flows
and nested flows, whose docstrings name them.
"""

from itertools import pairwise
from typing import Any, Final

import pytest

from jobtape import Flow, chain, item, job, previous, step
from jobtape.schemas.events import encode
from jobtape.schemas.job import FINAL, JobState
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.consumer.projector.dispatch.test_flows import check
from tests.flows import flow_ended, jobs_of, put_flow

pytestmark = pytest.mark.anyio

STEPS: Final = [*([1] * 2), *([2] * 9), *([1] * 4), *([2] * 6), *([1] * 2)]
"""How many tasks run side by side in each step of the chain in celery#5286."""
LARGEST_EVENT: Final = 30_000  # bytes; the graph has 38 nodes


@job("fault.add")
async def add(parts: list[int]) -> int:
    return sum(parts) + 1


@job("fault.upto")
async def upto(n: int) -> list[int]:
    return list(range(n))


TYPES: Final = (add, upto)


async def test_groups_in_a_chain_are_as_many_jobs_as_are_named(rig: Rig, view: Store) -> None:
    """In celery#5286 the submission of 15 chords in a chain hangs and takes all memory. In dramatiq#103 a group cannot
    come after a group: here each job has the results of the whole group before it.
    """
    nodes: dict[str, Any] = {"0.0": {"type": "fault.add", "payload": {"parts": []}}}
    expected = 1
    for n, (before, now) in enumerate(pairwise(STEPS), 1):
        parts = [{"$from": f"{n - 1}.{i}"} for i in range(before)]
        nodes |= {f"{n}.{i}": {"type": "fault.add", "payload": {"parts": parts}} for i in range(now)}
        expected = expected * before + 1
    async with rig.projector(view), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes)
        flow = await flow_ended(view, flow_id)
        assert (flow.state, flow.result) == (JobState.SUCCEEDED, {f"{len(STEPS) - 1}.0": expected})
        assert len(jobs_of(view, flow_id)) == sum(STEPS)
        await rig.read_to_end()
        assert max(len(encode(event)) for event in rig.events) < LARGEST_EVENT
        await check(rig, view, flow_id)


async def test_chain_of_a_hundred_hands_each_result_on(rig: Rig, view: Store) -> None:
    """In celery#1078 and celery#3804 a long chain is a RecursionError."""
    steps = chain(step(add, parts=[]), *(step(add, parts=[previous]) for _ in range(99)))
    async with rig.projector(view), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, steps.body()["nodes"])
        flow = await flow_ended(view, flow_id, 60)
        assert flow.result is not None and list(flow.result.values()) == [100]
        assert sorted(job.result for job in jobs_of(view, flow_id)) == list(range(1, 101))
        await check(rig, view, flow_id)


async def test_parents_at_their_limit_end_before_others_begin(rig: Rig, view: Store) -> None:
    """In bullmq#1899 a parent that waited for its children goes behind all parents that have none yet. So all children
    of all parents are there at once, and fill the memory. Here at most ``limit`` parents have children.
    """
    site = Flow("site")
    pages = site.add(upto, site.input["n"], node="pages")
    sizes = site.map(add, over=pages.result, parts=[item], node="sizes")
    site.add(add, sizes.result, node="sum")
    sites = Flow("sites")
    sites.map(site, over=sites.add(upto, 12, node="list").result, n=item, limit=2, node="each")
    async with rig.projector(view), rig.worker(*TYPES, concurrency=20):
        flow_id = await put_flow(rig, TYPES, sites.body()["nodes"])
        assert (await flow_ended(view, flow_id, 60)).state is JobState.SUCCEEDED
        each = jobs_of(view, flow_id, "each")
        assert [job.result for job in each] == [{"sum": n * (n + 1) // 2 + 1} for n in range(12)]
        await rig.read_to_end()
        parents = {job.id for job in each}
        is_open: set[str] = set()
        most = 0
        for event in rig.events:
            if event.subject in parents and event.name == "submitted":
                is_open.add(event.subject)
            elif event.name in FINAL:
                is_open.discard(event.subject)
            most = max(most, len(is_open))
        assert most == 2
        await check(rig, view, flow_id, *parents)
