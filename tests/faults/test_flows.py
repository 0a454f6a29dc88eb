"""Tests that each flow ends as it should, with one job for each place in it, whatever is killed."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from uuid_utils import uuid7

from jobtape.producer.service.submission.order_check import forked_order
from jobtape.schemas.events import JobEvent, Submitted, submitted
from jobtape.schemas.flows.flow import Fork
from jobtape.schemas.fold import evolve
from jobtape.schemas.interventions import cancelled
from jobtape.schemas.job import JobState
from jobtape.schemas.topology import CANCEL_KEY
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.faults import jobs
from tests.faults.load import done, sync_declarations
from tests.faults.parts import Parts
from tests.faults.scale import SCALE, scaled
from tests.flows import flow_ended, flow_event, flow_problems, jobs_of
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180 * max(1.0, SCALE))]

TYPES: Final = (jobs.add, jobs.nap, jobs.upto, jobs.total, jobs.refuse)
ITEMS: Final = 30
FLOWS: Final = scaled(12)
FORKS: Final = 4
DEATHS: Final = scaled(3)
_ADD: Final = {"type": "add"}
NODES: Final[dict[str, Any]] = {
    "upto": {"type": "upto", "payload": {"n": ITEMS}},
    "add": {"type": "add", "map": {"$from": "upto"}, "payload": {"x": {"$item": ""}, "y": 1}, "limit": 20},
    "total": {"type": "total", "payload": {"parts": {"$from": "add"}}},
    "refuse": {"type": "refuse", "after": ["upto"]},
    "skipped": {"type": "refuse", "after": ["refuse"]},
    "alert": {"type": "nap", "after": ["skipped"], "on": "failure", "payload": {"seconds": 0.01}},
    "inner": {
        "type": "jobtape.flow",
        "payload": {
            "input": {"x": {"$from": "total"}},
            "nodes": {"same": _ADD | {"payload": {"x": {"$input": "/x"}, "y": 0}}},
        },
    },
    "last": {"type": "add", "after": ["alert"], "payload": {"x": {"$from": "inner", "path": "/same"}, "y": 0}},
}
SUM: Final = sum(range(ITEMS)) + ITEMS


async def submit_flows(rig: Rig, number: int) -> list[str]:
    """Submit flows that succeed."""
    events = [flow_event(rig, TYPES, NODES) for _ in range(number)]
    await asyncio.gather(*(rig.publisher.publish(event) for event in events))
    return [event.subject for event in events]


async def submit_forks(rig: Rig, store: Store, flows: list[str], begin: str) -> list[str]:
    """Fork each of these flows from the node ``begin`` on."""
    known = {each.name: each for each in TYPES}
    as_of = store.committed.reach().head
    forks: list[str] = []
    for flow_id in flows:
        flow = store.job(flow_id)
        assert flow is not None
        taken = Counter(job.node for job in store.flows.succeeded_then(flow_id, as_of))
        so_far = Fork(flow=flow_id, as_of=as_of, taken=taken)
        order = forked_order(flow, begin, None, so_far, known, Settings().limits, datetime.now(UTC))
        event = submitted(str(uuid7()), order, source=rig.topology.source, time=datetime.now(UTC))
        await rig.publisher.publish(event)
        forks.append(event.subject)
    return forks


async def submit_cancelled(rig: Rig) -> str:
    """Submit a flow, and cancel it while it is expanded."""
    event = flow_event(rig, TYPES, NODES)
    await rig.publisher.publish(event)
    flow_id = event.subject
    await eventually(lambda: any(_is_of(each, flow_id) for each in rig.events), 60, what="the flow is expanded")
    end = cancelled(evolve(None, event), source=rig.topology.source, time=datetime.now(UTC))
    await rig.publisher.publish(end, (CANCEL_KEY,))
    return flow_id


def _is_of(event: JobEvent, flow_id: str) -> bool:
    """Return whether the event submits a job of the flow's mapped node."""
    flow = event.data.order.flow if isinstance(event, Submitted) else None
    return flow is not None and flow.id == flow_id and flow.node == "add"


async def check(rig: Rig, store: Store, flows: list[str], cancelled_flow: str | None = None) -> None:
    for flow_id in flows:
        flow = await flow_ended(store, flow_id, 90)
        assert (flow.state, flow.result) == (JobState.SUCCEEDED, {"last": SUM})
    if cancelled_flow is not None:
        assert (await flow_ended(store, cancelled_flow)).state is JobState.CANCELLED
        flows = [*flows, cancelled_flow]
        await eventually(lambda: not flow_problems(rig, store, flows), 60)
    report = await Checker(rig.url, rig.topology).check(store)
    assert not report.problems, str(report)
    assert not flow_problems(rig, store, flows)
    print(report)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_flows_go_on_when_workers_and_projectors_are_killed(
    rig: Rig, store: Store, database_url: str, tmp_path: Path
) -> None:
    """In the middle of expansion, fan-in, cancellation and forks. Failures reach their handler, as in celery#9107 and
    celery#3317 they did not, and no fan-in waits forever, as in bullmq#3362.
    """
    log = tmp_path / "parts.log"
    with Parts(log, rig.topology, url=rig.url, database=database_url) as parts:
        for part in ("worker", "projector"):
            for number in ("1", "2"):
                parts.start(part, part + number)
        flows = await submit_flows(rig, FLOWS)
        cancelled_flow = await submit_cancelled(rig)
        jobs_in_all = FLOWS * (ITEMS + 6)
        for death in range(1, DEATHS + 1):
            share = jobs_in_all * death // (DEATHS + 1)
            await eventually(partial(_reached, rig, share), 60, what=f"{share} of {jobs_in_all} are done")
            for part in ("worker", "projector"):
                name = f"{part}{1 + death % 2}"
                parts.kill(name)
                parts.start(part, name)
        await check(rig, store, flows, cancelled_flow)
        seen = len(rig.events)
        forks = await submit_forks(rig, store, flows[: FORKS // 2], "inner")
        forks += await submit_forks(rig, store, flows[: FORKS // 2], "refuse")
        await eventually(lambda: len(rig.events) > seen + FORKS * ITEMS, 60, what="results are taken")
        for part in ("worker", "projector"):
            parts.kill(f"{part}1")
            parts.kill(f"{part}2")
            parts.start(part, f"{part}1")
        await check(rig, store, forks)
        for flow_id in forks:
            # What was taken did not run.
            taken = {job.id for name in ("upto", "add", "total") for job in jobs_of(store, flow_id, name)}
            assert len(taken) == ITEMS + 2
            assert not [event for event in rig.events if event.name == "started" and event.subject in taken]
        assert parts.ended() == [], log.read_text()[-3000:]


def _reached(rig: Rig, share: int) -> bool:
    return len(done(rig)) >= share


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_flows_go_on_when_the_broker_is_killed(node: PrivateNode, node_rig: Rig, store: Store) -> None:
    rig = node_rig
    async with rig.projector(store) as projector, rig.worker(*TYPES, concurrency=4) as worker:
        await sync_declarations(node)
        flows = await submit_flows(rig, FLOWS)
        for n in range(1, scaled(2) + 1):
            await eventually(partial(_reached, rig, FLOWS * ITEMS * n // 4), 60)
            await asyncio.to_thread(node.kill)
            await eventually(lambda: worker.fault and projector.fault)
            await asyncio.to_thread(node.start)
        await check(rig, store, flows)
