"""Flows within flows, with a real projector and a real worker."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from jobtape import Flow, item
from jobtape.consumer.projector.dispatch.flows import runner
from jobtape.schemas.job import Job, JobState
from jobtape.view.store import JobQuery, Store
from tests.consumer.installation import Rig
from tests.consumer.projector.dispatch.test_flows import (
    TYPES,
    _broken,
    _open,
    cancel,
    check,
    redrive,
    total,
    twice,
    upto,
    wait,
)
from tests.consumer.rebuild_helpers import rebuilt
from tests.flows import flow_ended, jobs_of, put_flow
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _fresh() -> None:
    _open["gate"] = asyncio.Event()
    _broken.clear()


def fan(add: int = 0) -> Flow:
    """Return a flow whose result is the sum of the doubles of 0 to ``n``, its input."""
    flow = Flow("fan")
    numbers = flow.add(upto, flow.input["n"], node="numbers")
    doubles = flow.map(twice, over=numbers.result, x=item, node="doubles")
    flow.add(total, doubles.result, node="sum")
    if add:
        flow.add(twice, add, node="more")
    return flow


def nodes_of(flow: Flow) -> dict[str, Any]:
    nodes: dict[str, Any] = flow.body()["nodes"]
    return nodes


def all_jobs(store: Store, flow_id: str) -> list[Job]:
    """Return the jobs of a flow and of those in it."""
    found = jobs_of(store, flow_id)
    return found + [job for each in found if each.type == "jobtape.flow" for job in all_jobs(store, each.id)]


def mapped_flows() -> dict[str, Any]:
    """Return the nodes of a flow with a mapped node of flows, each with one more flow in it."""
    middle = Flow()
    inner = middle.add(fan(), n=middle.input["n"], node="inner")
    middle.add(twice, inner.result["sum"], node="last")
    outer = Flow()
    sizes = outer.add(upto, 4, node="sizes")
    outer.map(middle, over=sizes.result, n=item, node="each")
    return nodes_of(outer)


def sums(flow_id: str, store: Store) -> list[Any]:
    return [job.result for job in jobs_of(store, flow_id, "each")]


async def test_flow_in_a_flow_in_a_mapped_node_survives_other_projectors_and_a_rebuild(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In celery#3571 nested chords grow exponentially: here there are as many jobs as are named. In Oban Pro 1.7.7 what
    depends on a graph within a graph was lost: here ``last`` runs after the flow before it.
    """
    monkeypatch.setattr(runner, "PAGE", 2)
    async with rig.worker(*TYPES, concurrency=2):
        flow_id = ""
        for n in range(3):
            async with rig.projector(store, owner=f"p{n}", lease=1.0, ready=n == 0):
                seen = len(rig.events)
                flow_id = flow_id or await put_flow(rig, TYPES, mapped_flows())
                await eventually(partial(_further, rig, seen + 30, flow_id))
        async with rig.projector(store, owner="last", lease=1.0):
            assert (await flow_ended(store, flow_id)).state is JobState.SUCCEEDED
            assert sums(flow_id, store) == [{"last": 2 * n * (n - 1)} for n in range(4)]
            # sizes, 4 × (flow, last, inner flow: numbers, sum, doubles of 0, 1, 2, 3 items)
            assert len(all_jobs(store, flow_id)) == 1 + 4 * 5 + 6
            await check(
                rig, store, flow_id, *(job.id for job in all_jobs(store, flow_id) if job.type == "jobtape.flow")
            )
    before = all_jobs(store, flow_id)
    await asyncio.to_thread(rebuilt, store)
    assert all_jobs(store, flow_id) == before


def _further(rig: Rig, events: int, flow_id: str) -> bool:
    return len(rig.events) > events or "succeeded" in rig.names(flow_id)


async def test_failure_fails_all_outer_flows_and_a_redrive_runs_only_what_failed(rig: Rig, view: Store) -> None:
    """The error callback after a nested group is called, once (celery#9107, celery#3317), and its results are kept
    (celery#4161).
    """
    _broken.add(2)
    outer = Flow()
    middle = Flow()
    middle.add(fan(), n=4, node="inner")
    failing = outer.add(middle, node="middle")
    outer.add(wait, "alert", after=[failing], on="failure", node="alert")
    after = outer.add(twice, failing.result["inner"]["sum"], node="after")
    outer.add(twice, after.result, node="end")
    _open["gate"].set()
    async with rig.projector(view), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes_of(outer))
        flow = await flow_ended(view, flow_id)
        found = {job.node: (job.state.value, job.run) for job in all_jobs(view, flow_id) if job.item is None}
        assert flow.state is JobState.SUCCEEDED  # the failure is handled
        assert found == {
            "middle": ("failed", 1),
            "inner": ("failed", 1),
            "numbers": ("succeeded", 1),
            "alert": ("succeeded", 1),
        }
        _broken.clear()
        await redrive(rig, view, flow_id)
        flow = await flow_ended(view, flow_id, run=2)
        assert (flow.state, flow.result) == (JobState.SUCCEEDED, {"alert": "alert", "end": 48})
        again = [(job.node, job.item) for job in all_jobs(view, flow_id) if job.run == 2]
        assert sorted(map(str, again)) == ["('doubles', 2)", "('inner', None)", "('middle', None)"]
        assert {job.run for job in all_jobs(view, flow_id)} == {1, 2}
        await check(rig, view, flow_id)


async def test_cancel_reaches_the_innermost_jobs(rig: Rig, view: Store) -> None:
    inner, middle, outer = Flow(), Flow(), Flow()
    inner.add(wait, "a", node="wait")
    inner.add(wait, "b", node="never", after=[inner.add(wait, "c", node="wait2")])
    middle.add(inner, node="inner")
    middle.add(upto, 1, node="always", after=[middle.add(wait, "d", node="wait3")], on="done")
    outer.map(middle, over=outer.add(upto, 3, node="sizes").result, node="each", n=item)
    async with rig.projector(view), rig.worker(*TYPES, concurrency=20):
        flow_id = await put_flow(rig, TYPES, nodes_of(outer))
        await eventually(lambda: len(view.list_jobs(JobQuery(types=("wait",), limit=100))) == 9)
        await cancel(rig, view, flow_id)
        await eventually(lambda: all(job.final for job in all_jobs(view, flow_id)))
        states = {(job.node, job.state.value) for job in all_jobs(view, flow_id)}
        cancelled = ("each", "inner", "wait", "wait2", "wait3")
        assert states == {("sizes", "succeeded"), *((name, "cancelled") for name in cancelled)}
        _open["gate"].set()
        await redrive(rig, view, flow_id)
        assert (await flow_ended(view, flow_id, run=2)).state is JobState.SUCCEEDED
        assert {job.state for job in all_jobs(view, flow_id)} == {JobState.SUCCEEDED}
        assert len(all_jobs(view, flow_id)) == 1 + 3 * 7
        await check(rig, view, flow_id)


async def test_flow_is_mapped_over_its_input_and_stops_what_is_in_it(rig: Rig, view: Store) -> None:
    _broken.add(1)
    inner = Flow(labels={"part": "inner"})
    inner.map(wait, over=inner.input["texts"], text=item, node="waits")
    outer = Flow(stop="now")
    outer.add(inner, texts=["a", "b"], node="inner")
    outer.add(twice, 1, node="bad")
    async with rig.projector(view), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes_of(outer), stop="now", labels={"all": "1"})
        assert (await flow_ended(view, flow_id)).state is JobState.FAILED
        await eventually(lambda: all(job.final for job in all_jobs(view, flow_id)))
        waits = [job for job in all_jobs(view, flow_id) if job.node == "waits"]
        assert {job.state for job in waits} <= {JobState.CANCELLED}
        assert all(job.labels == {"all": "1", "part": "inner"} for job in waits)


async def test_retention_keeps_jobs_of_inner_flows_until_the_outermost_has_ended(rig: Rig, view: Store) -> None:
    later = datetime(2100, 1, 1, tzinfo=UTC)
    outer = Flow()
    outer.add(fan(), n=2, node="inner")
    outer.add(wait, "a", node="wait")
    async with rig.projector(view), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes_of(outer))
        inner = await eventually(lambda: [job for job in jobs_of(view, flow_id, "inner") if job.final])
        inside = len(jobs_of(view, inner[0].id))
        assert await asyncio.to_thread(view.retention.prune, "p1", later) is not None
        assert len(jobs_of(view, inner[0].id)) == inside > 0
        _open["gate"].set()
        await flow_ended(view, flow_id)

        def pruned() -> bool:
            view.retention.prune("p1", later)
            return not view.list_jobs(JobQuery(limit=10))

        await eventually(pruned)
