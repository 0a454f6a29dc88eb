"""Flows of any shape end as a reference says, whatever is killed while they expand, join, fork, end early or run again.

Then a rebuild of the view, and an import of its export into another installation, give the same jobs.
"""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from jobtape.cli.tape.export import export
from jobtape.schemas.events import Succeeded
from jobtape.schemas.events.interventions import cancelled, redriven
from jobtape.schemas.flows.graph import NodeState
from jobtape.schemas.flows.outcomes import WORKER
from jobtape.schemas.flows.state import FlowState
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.messages.tape_file import TapeHeader
from jobtape.schemas.topology import CANCEL_KEY
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.consumer.rebuild_helpers import rebuilt
from tests.faults import jobs
from tests.faults.load import sync_declarations
from tests.faults.parts import Parts
from tests.faults.scale import SCALE, scaled
from tests.flows import flow_ended, flow_event, flow_problems, jobs_of, put_fork
from tests.namespaces import environment_for, some_topology
from tests.schemas.flows.model import Before, Model, Nodes, after, any_flow, flow_in, jobs_in, taken_by
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600 * max(1.0, SCALE))]

TYPES: Final = (jobs.model_step, jobs.model_items)
FLOWS: Final = scaled(2)
"""Of each kind."""
MOST_ITEMS: Final = 12
PAGE: Final = 3
"""Jobs of a mapped node that are submitted before other flows get their turn: an expansion takes many steps."""


class Killed:
    """A worker, a projector and a broker, each of which can be killed and is started again."""

    def __init__(self, rig: Rig, node: PrivateNode, parts: Parts, chance: random.Random) -> None:
        self._rig = rig
        self._node = node
        self._parts = parts
        self._chance = chance
        for part in ("worker", "projector"):
            parts.start(part, part)

    async def while_events_follow(self, *, broker: bool, every: int = 20) -> None:
        """Kill a worker, a projector and, if ``broker``, the broker: one after ``every`` further events of the tape."""
        for what in self._chance.sample(["worker", "projector", *(["broker"] if broker else [])], 2 + broker):
            enough = len(self._rig.events) + every
            await eventually(partial(self._has, enough), 60, what=f"{every} more events")
            if what == "broker":
                await asyncio.to_thread(self._node.kill)
                await asyncio.to_thread(self._node.start)
            else:
                self._parts.kill(what)
                self._parts.start(what, what)

    def _has(self, number: int) -> bool:
        return len(self._rig.events) >= number


def observed(store: Store, flow_id: str, nodes: Nodes, path: str) -> Before:
    """Return the states of all nodes of flows that have begun, by path, and the names of the jobs that succeeded."""
    job = store.job(flow_id)
    assert job is not None
    flow = FlowState(job, store.flows.jobs(flow_id))
    store.flows.count_items(flow)
    states: dict[str, NodeState] = {}
    for name, state in flow.states(ended=job.final).items():
        here, own = f"{path}/{name}", flow.job_of(name, None)
        states[here] = state
        if own is not None and (nested := flow_in(nodes[name])) is not None:
            states |= observed(store, own.id, nested, here).states
    succeeded = {name_of(each) for each in steps_of(store, flow_id) if each.state is JobState.SUCCEEDED}
    return Before(states, succeeded)


def steps_of(store: Store, flow_id: str) -> Iterator[Job]:
    """Yield the jobs ``model.step`` of a flow and of those in it."""
    for job in jobs_of(store, flow_id):
        if job.type == "jobtape.flow":
            yield from steps_of(store, job.id)
        elif job.type == "model.step":
            yield job


def name_of(job: Job) -> str:
    """Return the name of a job ``model.step``."""
    return str((job.payload or {})["name"])


def runs(store: Store, flow_id: str) -> dict[str, int]:
    """Return the run of each job, by its name."""
    return {name_of(job): job.run for job in steps_of(store, flow_id)}


def inner_flows(store: Store, flow_id: str) -> Iterator[str]:
    """Yield the id of the flow and of all flows in it that have jobs."""
    below = jobs_of(store, flow_id)
    if below:
        yield flow_id
    for job in below:
        if job.type == "jobtape.flow":
            yield from inner_flows(store, job.id)


async def check_end(store: Store, flow_id: str, nodes: Nodes, path: str, model: Model, run: int = 1) -> None:
    """Wait for the end of a flow, and compare it with the model."""
    flow = await flow_ended(store, flow_id, 120, run=run)
    assert flow.state == model.state(), (path, nodes)
    assert observed(store, flow_id, nodes, path).states == model.states, (path, nodes)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_any_flow_ends_as_its_definition_says_whatever_is_killed(
    node: PrivateNode, node_rig: Rig, store: Store, database_url: str, tmp_path: Path
) -> None:
    """Failures reach their handler (celery#9107, celery#3317) and no fan-in waits forever (bullmq#3362)."""
    rig, chance = node_rig, random.Random(16)
    flows = {f"f{n}": any_flow(chance, f"f{n}", most_items=MOST_ITEMS) for n in range(3 * FLOWS)}
    to_redrive, to_fork, to_cancel = (list(flows)[n::3] for n in range(3))
    broken = tmp_path / "broken"

    def break_some() -> Callable[[str], bool]:
        """Let a quarter of the jobs fail from now on. Returns whether the job with a name would succeed."""
        chosen = {name for path, nodes in flows.items() for name in jobs_in(nodes, path) if chance.random() < 0.25}
        (tmp_path / "new").write_text("\n".join(sorted(chosen)))
        (tmp_path / "new").rename(broken)
        return lambda name: name not in chosen

    async def submit(paths: list[str]) -> dict[str, str]:
        events = {path: flow_event(rig, TYPES, flows[path]) for path in paths}
        await asyncio.gather(*map(rig.publisher.publish, events.values()))
        return {path: event.subject for path, event in events.items()}

    async def redrive(flow_ids: dict[str, str]) -> dict[str, Before]:
        """Redrive ended flows. Returns how they had ended."""
        before = {path: observed(store, flow_id, flows[path], path) for path, flow_id in flow_ids.items()}
        for flow_id in flow_ids.values():
            job = store.job(flow_id)
            assert job is not None
            await rig.publisher.publish(redriven(job, source=rig.topology.source, time=datetime.now(UTC)))
        return before

    async def check_redriven(
        ids: dict[str, str], before: dict[str, Before], earlier: dict[str, dict[str, int]], ok: Callable[[str], bool]
    ) -> None:
        for path, flow_id in ids.items():
            model = Model(flows[path], path, ok, before[path])
            await check_end(store, flow_id, flows[path], path, model, run=2)
            now = runs(store, flow_id)
            assert {name for name, run in now.items() if run != earlier[path].get(name)} == model.began, path

    spec: dict[str, Any] = {"url": rig.url, "database": database_url, "page": PAGE, "broken": str(broken)}
    log = tmp_path / "parts.log"
    with Parts(log, rig.topology, **spec) as parts:
        ok = break_some()
        killed = Killed(rig, node, parts, chance)
        await eventually(rig.consumers, 60, what="a worker takes jobs")
        await sync_declarations(node)

        # Expansion and fan-in.
        ids = await submit(to_redrive + to_fork)
        await killed.while_events_follow(broker=True)
        models = {path: Model(flows[path], path, ok) for path in ids}
        for path, flow_id in ids.items():
            await check_end(store, flow_id, flows[path], path, models[path])
            assert runs(store, flow_id) == dict.fromkeys(models[path].began, 1), path
            assert not wrong_parts(store, flow_id, models[path]), path

        # Redrive, fork and cancel, all at once.
        ok = break_some()
        redriven_ids = {path: ids[path] for path in to_redrive}
        earlier = {path: runs(store, flow_id) for path, flow_id in redriven_ids.items()}
        begins = {path: chance.choice(list(flows[path])) for path in to_fork}
        forks = {path: await put_fork(rig, store, ids[path], begins[path], TYPES) for path in to_fork}
        cancelled_ids = await submit(to_cancel)
        before = await redrive(redriven_ids)
        await cancel_when_begun(rig, cancelled_ids.values())
        await killed.while_events_follow(broker=True)
        await check_redriven(redriven_ids, before, earlier, ok)
        for path, flow_id in forks.items():
            taken = taken_by(flows[path], path, models[path], after(flows[path], begins[path]))
            model = Model(flows[path], path, lambda name, taken=taken: name in taken or ok(name))  # type: ignore[misc]
            await check_end(store, flow_id, flows[path], path, model)
            steps = list(steps_of(store, flow_id))
            assert set(map(name_of, steps)) == model.began, path
            # What handled a failure does not begin when the failed job, which runs too, succeeds this time.
            assert {name_of(job) for job in steps if job.id in not_run(rig)} == taken & model.began, path
            assert not wrong_parts(store, flow_id, model, taken, models[path]), path
        for path, flow_id in cancelled_ids.items():
            await check_cancelled(store, flow_id, flows[path], path, Model(flows[path], path, ok))

        # A part of what was cancelled has run.
        ok = break_some()
        earlier = {path: runs(store, flow_id) for path, flow_id in cancelled_ids.items()}
        before = await redrive(cancelled_ids)
        await killed.while_events_follow(broker=False, every=20)
        await check_redriven(cancelled_ids, before, earlier, ok)

        report = await Checker(rig.url, rig.topology).check(store)
        assert not report.problems, str(report)
        all_flows = [
            each for found in (ids, forks, cancelled_ids) for top in found.values() for each in inner_flows(store, top)
        ]
        assert not await flow_problems(rig, store, all_flows)
        assert parts.ended() == [], log.read_text()[-3000:]
        print(f"{len(all_flows)} flows: {report}")
    found = all_jobs(store)
    await asyncio.to_thread(rebuilt, store)
    assert all_jobs(store) == found
    assert await imported(node, store, tmp_path) == {job_id: without_position(job) for job_id, job in found.items()}


def not_run(rig: Rig) -> set[str]:
    """Return the ids of jobs that succeeded without being run."""
    return {event.subject for event in rig.events if isinstance(event, Succeeded) and event.data.worker == WORKER}


def wrong_parts(
    store: Store, flow_id: str, model: Model, taken: Set[str] = frozenset(), forked: Model | None = None
) -> list[tuple[str, str]]:
    """Return the jobs that got another result of a job before them than that had, with the name of the node.

    ``taken``: the jobs that have the result, and so the payload, that they had in the flow that was ``forked``.
    """
    wrong: list[tuple[str, str]] = []
    for job in steps_of(store, flow_id):
        path = name_of(job).rpartition("/")[0]
        ran_in = forked if forked is not None and name_of(job) in taken else model
        for node, got in ((job.payload or {}).get("parts") or {}).items():
            succeeded = ran_in.states[f"{path}/{node}"] is NodeState.SUCCEEDED
            expected = f"{path}/{node}" if succeeded else None
            if got != expected and not (succeeded and isinstance(got, dict)):  # the result of a flow
                wrong.append((name_of(job), node))
    return wrong


async def cancel_when_begun(rig: Rig, flow_ids: Iterable[str]) -> None:
    """Cancel each flow when it has submitted a job."""
    for flow_id in flow_ids:
        await eventually(partial(_has_begun, rig, flow_id), 60, what="the flow has begun")
        end = cancelled(evolve(None, rig.of(flow_id)[0]), source=rig.topology.source, time=datetime.now(UTC))
        await rig.publisher.publish(end, (CANCEL_KEY,))


def _has_begun(rig: Rig, flow_id: str) -> bool:
    return len(rig.of(flow_id)) > 1


async def check_cancelled(store: Store, flow_id: str, nodes: Nodes, path: str, model: Model) -> None:
    """Check a flow that was cancelled while it ran, or just after its end: nothing else has begun, all has ended."""
    flow = await flow_ended(store, flow_id, 120)
    if flow.state is not JobState.CANCELLED:
        assert observed(store, flow_id, nodes, path).states == model.states, (path, nodes)
        return

    def all_ended() -> bool:
        below = [job for each in inner_flows(store, flow_id) for job in jobs_of(store, each)]
        return all(job.final for job in below)

    await eventually(all_ended, 60, what=f"all jobs of {flow_id} end")
    assert runs(store, flow_id).keys() <= model.began, path
    for here, state in observed(store, flow_id, nodes, path).states.items():
        assert state in (NodeState.SKIPPED, NodeState.FAILED, model.states[here]), (here, nodes)


def all_jobs(store: Store) -> dict[str, Job]:
    return {job.id: job for job in store.list_jobs(JobQuery(limit=100_000))}


def without_position(job: Job) -> dict[str, Any]:
    """Return the fields of a job without its place on the tape, and what follows from that."""
    fields = asdict(job)
    for name in ("cursor", "imported", "rank", "has_slots"):
        del fields[name]
    return fields


async def imported(node: PrivateNode, store: Store, folder: Path) -> dict[str, Any]:
    """Import an export of the view into another namespace. Returns the jobs of the view there, by id."""
    path, topology = folder / "tape.gz", some_topology()
    export(store, path, TapeHeader("model", "here", 0, store.committed.reach().head))
    there = Store(f"sqlite:///{folder / 'there.db'}")
    there.migrate()
    environment = (
        os.environ | environment_for(node.url, topology) | {"DATABASE_URL": f"sqlite:///{folder / 'there.db'}"}
    )
    async with Rig(node.url, topology) as rig, rig.projector(there):
        command = [sys.executable, "-m", "jobtape", "import", str(path)]
        done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        found = {job_id: without_position(job) for job_id, job in all_jobs(there).items()}
    there.close()
    return found
