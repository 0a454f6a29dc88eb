"""Flows with real projectors and workers: taking over, cancelling, running again, stopping."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import pytest

from jobtape import job
from jobtape.consumer.projector.dispatch.flows import runner
from jobtape.schemas.events import encode
from jobtape.schemas.events.interventions import cancelled, redriven
from jobtape.schemas.flows.graph import NodeState
from jobtape.schemas.flows.state import FlowState
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import JobState
from jobtape.schemas.topology import CANCEL_KEY
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.consumer.rebuild_helpers import rebuilt
from tests.flows import flow_ended, flow_problems, jobs_of, put_flow
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

_open: dict[str, asyncio.Event] = {}
_broken: set[int] = set()
"""The numbers for which ``twice`` fails."""


@job("upto")
def upto(n: int) -> list[int]:
    return list(range(n))


@job("twice")
async def twice(x: int) -> int:
    if x in _broken:
        raise ValueError(f"no {x}")
    return 2 * x


@job("total")
async def total(parts: list[int | None]) -> int:
    return sum(part or 0 for part in parts)


@job("wait")
async def wait(text: str = "") -> str:
    await _open["gate"].wait()
    return text


TYPES: Final = (upto, twice, total, wait)
FAN: Final[dict[str, Any]] = {
    "upto": {"type": "upto", "payload": {"n": 40}},
    "twice": {"type": "twice", "map": {"$from": "upto"}, "payload": {"x": {"$item": ""}}},
    "total": {"type": "total", "payload": {"parts": {"$from": "twice"}}},
}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    _open["gate"] = asyncio.Event()
    _broken.clear()


async def check(rig: Rig, store: Store, *flow_ids: str) -> None:
    report = await Checker(rig.url, rig.topology).check(store)
    assert not report.problems, str(report)
    assert report.repeated == 0, str(report)
    assert not await flow_problems(rig, store, flow_ids)


async def redrive(rig: Rig, store: Store, job_id: str) -> None:
    found = store.job(job_id)
    assert found is not None
    await rig.publisher.publish(redriven(found, source=rig.topology.source, time=datetime.now(UTC)))


async def cancel(rig: Rig, store: Store, job_id: str) -> None:
    found = store.job(job_id)
    assert found is not None
    await rig.publisher.publish(cancelled(found, source=rig.topology.source, time=datetime.now(UTC)), (CANCEL_KEY,))


def _further(rig: Rig, events: int, flow_ids: list[str]) -> bool:
    """Return whether the tape has more than so many events, or all flows have ended."""
    return len(rig.events) > events or all("succeeded" in rig.names(flow_id) for flow_id in flow_ids)


async def test_projectors_that_take_over_go_on_with_each_flow(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end as if they were killed, in the middle of expansion and fan-in (bullmq#3362: the parent hangs)."""
    monkeypatch.setattr(runner, "PAGE", 7)
    async with rig.worker(*TYPES, concurrency=2):
        flows: list[str] = []
        for n in range(4):
            async with rig.projector(store, owner=f"p{n}", lease=1.0, ready=n == 0):
                seen = len(rig.events)
                if not flows:
                    flows = [await put_flow(rig, TYPES, FAN) for _ in range(3)]
                await eventually(partial(_further, rig, seen + 40, flows))
        async with rig.projector(store, owner="last", lease=1.0):
            for flow_id in flows:
                flow = await flow_ended(store, flow_id)
                assert (flow.state, flow.result) == (JobState.SUCCEEDED, {"total": 40 * 39})
                await rig.read_to_end()
                assert rig.names(flow_id).count("succeeded") == 1
            await check(rig, store, *flows)


async def test_limit_of_a_mapped_node_is_kept(rig: Rig, view: Store) -> None:
    nodes = {**FAN, "twice": FAN["twice"] | {"type": "wait", "payload": {"text": "a"}, "limit": 3}}
    nodes.pop("total")
    async with rig.projector(view), rig.worker(*TYPES, concurrency=20):
        flow_id = await put_flow(rig, TYPES, nodes)
        await eventually(lambda: len(jobs_of(view, flow_id, "twice")) == 3)
        _open["gate"].set()
        await flow_ended(view, flow_id)
        await rig.read_to_end()
        # At each moment at most three were submitted and not ended.
        here = most = 0
        for event in rig.events:
            if event.subject != flow_id and event.data.job_type == "wait":
                here += {"submitted": 1, "succeeded": -1}.get(event.name, 0)
                most = max(most, here)
        assert most == 3
        await check(rig, view, flow_id)


async def test_mapped_node_at_its_limit_without_open_jobs_is_shown_as_running(rig: Rig, view: Store) -> None:
    """The runner ends between two jobs, as if it were killed."""
    nodes = {**FAN, "twice": FAN["twice"] | {"type": "wait", "payload": {"text": "a"}, "limit": 3}}
    nodes.pop("total")
    async with rig.projector(view, owner="p1", lease=1.0), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes)
        await eventually(lambda: len(jobs_of(view, flow_id, "twice")) == 3)
    job = view.job(flow_id)
    assert job is not None
    ended = [each._replace(state=JobState.SUCCEEDED) for each in view.flows.jobs(flow_id)]
    flow = FlowState(job, ended)
    view.flows.count_items(flow)
    assert flow.items == {"twice": 40} and flow.states(ended=False)["twice"] is NodeState.RUNNING


async def test_result_that_has_no_room_leaves_those_that_have(rig: Rig, view: Store) -> None:
    nodes = {name: {"type": "upto", "payload": {"n": n}} for name, n in (("a", 2), ("b", 300), ("c", 3))}
    async with rig.projector(view, max_payload=200), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes)
        assert (await flow_ended(view, flow_id)).result == {"a": [0, 1], "c": [0, 1, 2]}


async def test_cancelled_flow_cancels_its_jobs_and_skips_the_rest(rig: Rig, store: Store) -> None:
    nodes = {
        "upto": {"type": "upto", "payload": {"n": 5}},
        "wait": {"type": "wait", "map": {"$from": "upto"}, "payload": {"text": "a"}},
        "total": {"type": "total", "payload": {"parts": {"$from": "wait"}}},
        "always": {"type": "total", "payload": {"parts": []}, "after": ["wait"], "on": "done"},
    }
    async with rig.projector(store), rig.worker(*TYPES, concurrency=2):
        flow_id = await put_flow(rig, TYPES, nodes)
        await eventually(lambda: len(jobs_of(store, flow_id, "wait")) == 5)
        await cancel(rig, store, flow_id)
        await eventually(lambda: all(each.final for each in jobs_of(store, flow_id)))
        assert {each.state for each in jobs_of(store, flow_id, "wait")} == {JobState.CANCELLED}
        assert not jobs_of(store, flow_id, "total") and not jobs_of(store, flow_id, "always")
        await check(rig, store, flow_id)


async def test_projector_that_takes_over_cancels_what_a_cancelled_flow_has_left(rig: Rig, view: Store) -> None:
    nodes = {"wait": {"type": "wait", "payload": {"text": "a"}}}
    async with rig.worker(*TYPES):
        async with rig.projector(view, owner="p1", lease=1.0):
            flow_id = await put_flow(rig, TYPES, nodes)
            await eventually(lambda: jobs_of(view, flow_id))
        await cancel(rig, view, flow_id)
        async with rig.projector(view, owner="p2", lease=1.0):
            await eventually(lambda: all(each.final for each in jobs_of(view, flow_id)))
            await check(rig, view, flow_id)


async def test_redriven_flow_runs_failed_jobs_again_and_decides_skipped_ones_anew(rig: Rig, store: Store) -> None:
    _broken.update((3, 17))
    nodes = {**FAN, "alert": {"type": "wait", "after": ["total"], "on": "failure"}}
    nodes["upto"] = {"type": "upto", "payload": {"n": 20}}
    nodes["late"] = {"type": "twice", "payload": {"x": 3}}
    _open["gate"].set()
    async with rig.projector(store), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes)
        flow = await flow_ended(store, flow_id)
        assert flow.state is JobState.FAILED and flow.error is not None and "late" in flow.error.message
        assert not jobs_of(store, flow_id, "total")
        _broken.clear()
        await redrive(rig, store, flow_id)
        flow = await flow_ended(store, flow_id, run=2)
        assert (flow.state, flow.result) == (JobState.SUCCEEDED, {"total": 20 * 19, "alert": "", "late": 6})
        assert [each.run for each in jobs_of(store, flow_id, "twice")] == [2 if n in (3, 17) else 1 for n in range(20)]
        assert [each.run for each in jobs_of(store, flow_id, "alert")] == [1]
        await check(rig, store, flow_id)


async def test_flow_that_stops_now_cancels_what_runs(rig: Rig, view: Store) -> None:
    _broken.add(1)
    nodes = {
        "bad": {"type": "twice", "payload": {"x": 1}},
        "wait": {"type": "wait"},
        "next": {"type": "total", "payload": {"parts": []}, "after": ["wait"], "on": "done"},
    }
    async with rig.projector(view), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes, stop="now")
        flow = await flow_ended(view, flow_id)
        assert flow.state is JobState.FAILED
        assert {each.node: each.state for each in jobs_of(view, flow_id)} == {"bad": "failed", "wait": "cancelled"}
        await check(rig, view, flow_id)


async def test_job_that_is_redriven_while_its_flow_is_open_counts_again(rig: Rig, view: Store) -> None:
    _broken.add(1)
    nodes = {
        "bad": {"type": "twice", "payload": {"x": 1}},
        "next": {"type": "twice", "payload": {"x": {"$from": "bad"}}},
        "wait": {"type": "wait"},
    }
    async with rig.projector(view), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes)
        await eventually(lambda: any(each.state is JobState.FAILED for each in jobs_of(view, flow_id)))
        _broken.clear()
        await redrive(rig, view, jobs_of(view, flow_id, "bad")[0].id)
        await eventually(lambda: jobs_of(view, flow_id, "next"))
        _open["gate"].set()
        assert (await flow_ended(view, flow_id)).result == {"next": 4, "wait": ""}
        await check(rig, view, flow_id)


async def test_rebuild_of_a_running_flow_gives_the_same_and_submits_nothing_again(rig: Rig, store: Store) -> None:
    nodes = {
        **FAN,
        "wait": {"type": "wait", "after": ["twice"]},
        "last": {"type": "total", "payload": {"parts": []}, "after": ["wait", "total"]},
    }
    async with rig.worker(*TYPES):
        async with rig.projector(store, owner="p1", lease=1.0):
            flow_id = await put_flow(rig, TYPES, nodes)
            await eventually(lambda: jobs_of(store, flow_id, "wait"))
            await eventually(lambda: [each.state for each in jobs_of(store, flow_id, "total")] == ["succeeded"])
        before = jobs_of(store, flow_id)
        await asyncio.to_thread(rebuilt, store)
        assert jobs_of(store, flow_id) == before
        async with rig.projector(store, owner="p2", lease=1.0):
            _open["gate"].set()
            assert (await flow_ended(store, flow_id)).state is JobState.SUCCEEDED
            await check(rig, store, flow_id)


async def test_six_fans_in_a_row_are_as_many_jobs_as_are_named(rig: Rig, view: Store) -> None:
    """In celery#3571 and celery PR#10171 the messages of nested chords grow exponentially."""
    nodes: dict[str, Any] = {}
    for n in range(6):
        after = [f"total{n - 1}"] if n else []
        nodes[f"upto{n}"] = {"type": "upto", "payload": {"n": 5}, "after": after}
        nodes[f"twice{n}"] = {"type": "twice", "map": {"$from": f"upto{n}"}, "payload": {"x": {"$item": ""}}}
        nodes[f"total{n}"] = {"type": "total", "payload": {"parts": {"$from": f"twice{n}"}}}
    async with rig.projector(view), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes)
        flow = await flow_ended(view, flow_id)
        assert (flow.state, flow.result) == (JobState.SUCCEEDED, {"total5": 20})
        assert len(jobs_of(view, flow_id)) == 6 * 7
        await rig.read_to_end()
        assert max(len(encode(event)) for event in rig.events) < 10_000
        await check(rig, view, flow_id)


async def test_retention_keeps_the_jobs_of_a_flow_until_the_flow_has_ended(rig: Rig, view: Store) -> None:
    later = datetime(2100, 1, 1, tzinfo=UTC)
    nodes = {"first": {"type": "twice", "payload": {"x": 1}}, "wait": {"type": "wait"}}
    async with rig.projector(view), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes)
        await eventually(lambda: any(each.final for each in jobs_of(view, flow_id, "first")))
        assert await asyncio.to_thread(view.retention.prune, "p1", later) is not None
        assert jobs_of(view, flow_id, "first")
        _open["gate"].set()
        await flow_ended(view, flow_id)

        def pruned() -> bool:
            view.retention.prune("p1", later)
            return view.job(flow_id) is None and not jobs_of(view, flow_id)

        await eventually(pruned)


async def test_flow_is_not_taken_for_lost_work(rig: Rig, view: Store) -> None:
    """Its queue, that of the built-in jobs, is empty, and the flow has no event for longer than ``rescue_after``."""
    nodes = {"wait": {"type": "wait"}}
    async with rig.projector(view, rescue_after=0.2), rig.worker(*TYPES):
        flow_id = await put_flow(rig, TYPES, nodes)
        await eventually(lambda: jobs_of(view, flow_id))
        due = datetime(2100, 1, 1, tzinfo=UTC)
        assert not view.open_jobs.overdue("jobtape", due, 2**60, "", 10)
        flow = view.job(flow_id)
        assert flow is not None and evolve(flow, cancelled(flow, source="/", time=due)).state is JobState.CANCELLED
        _open["gate"].set()
        await flow_ended(view, flow_id)
