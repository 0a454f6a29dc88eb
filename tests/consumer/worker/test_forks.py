"""Handlers that fork: the child is separate from the worker, and the worker continues."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobtape.broker.declare import remove_namespace
from jobtape.schemas.events import Progressed, Started
from jobtape.schemas.topology import Topology
from tests.cli.programs import COMMAND, Program, alive
from tests.consumer.installation import Rig
from tests.namespaces import environment_for, some_topology
from tests.waiting import eventually, within

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]
TERMINATED = -signal.SIGTERM

EXPECTED = {
    "terminated": [TERMINATED] * 12,
    "ended": [0],
    "pool": [1, 2],
    "executor": [1, 2],
    "preexec": [TERMINATED, 0],
    "signalled": [TERMINATED, -signal.SIGINT, -signal.SIGHUP],
    "back": [7],
    "sockets": [0, 0],
}


@dataclass
class RunningWorker:
    """A worker process and the rig of its namespace."""

    rig: Rig
    program: Program


@contextmanager
def worker(url: str, topology: Topology, *arguments: str) -> Iterator[Program]:
    """Run ``jobtape worker`` with the handlers that fork."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("JOBTAPE_")}
    env |= environment_for(url, topology) | {"JOBTAPE_JOBS": "tests.consumer.fork_jobs"}
    program = Program([*COMMAND, "worker", *arguments], env, ROOT)
    try:
        yield program
    finally:
        program.close()


@pytest.fixture(scope="module")
async def running(broker_url: str) -> AsyncIterator[RunningWorker]:
    """Run one worker for the tests of this module, none of which may end it."""
    topology = some_topology()
    async with Rig(broker_url, topology) as rig:
        with worker(broker_url, topology, "--concurrency", "4") as program:
            program.line_with("taking jobs")
            yield RunningWorker(rig, program)
            program.send(signal.SIGTERM)
            assert program.code() == 0
        signals = [line for line in program.lines if "SIGTERM" in line]
        assert len(signals) == 1, f"only its own signal reached it: {program.lines}"
    await remove_namespace(broker_url, topology)


@pytest.mark.parametrize("way", EXPECTED)
async def test_child_ends_and_worker_continues(running: RunningWorker, way: str) -> None:
    kinds = ("fork.def", "fork.async", "fork.isolated", "fork.aisolated")
    jobs = {kind: await running.rig.submit(kind, {"way": way}) for kind in kinds}
    for kind, job_id in jobs.items():
        outcome = await running.rig.outcome(job_id)
        assert (outcome.name, outcome.data.result) == ("succeeded", EXPECTED[way]), kind
        assert len({event.data.execution for event in running.rig.of(job_id) if isinstance(event, Started)}) <= 1
    assert running.program.running()


@pytest.mark.parametrize("kind", ["fork.back", "fork.aback", "fork.iback", "fork.iaback"])
async def test_child_that_returns_from_handler_ends(running: RunningWorker, kind: str, tmp_path: Path) -> None:
    codes = {"return": 0, "raise": 1, "exit": 5}
    if kind.removeprefix("fork.").removeprefix("i").startswith("a"):
        codes |= {"await": 1, "await step": 1}
    beside = tmp_path / "steps"
    neighbour = await running.rig.submit("fork.neighbour", {"path": str(beside)})
    for how, code in codes.items():
        path = tmp_path / how
        job_id = await running.rig.submit(kind, {"how": how, "path": str(path)})
        outcome = await running.rig.outcome(job_id)
        assert (outcome.name, outcome.data.result) == ("succeeded", code), how
        assert not [event for event in running.rig.of(job_id) if isinstance(event, Progressed)], (
            "the child's progress is not published"
        )
        assert not alive(int(path.read_text()))
    await running.rig.outcome(neighbour)
    steps = beside.read_text().split()
    assert (len(steps), len(set(steps))) == (200, 1), "no step of a neighbour ran in a child"


async def test_child_that_outlives_worker_holds_no_delivery(rig: Rig, broker_url: str, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with worker(broker_url, rig.topology, "--concurrency", "1") as program:
        job_id = await rig.submit("fork.stays", {"path": str(path)})
        behind = await rig.submit("fork.def", {"way": "ended"})
        await eventually(lambda: path.exists() and path.read_text())
        try:
            program.send(signal.SIGKILL)
            with within(5):
                await eventually(rig.depth_is(2), what="both are back on their queue at once")
            assert not program.running()
            assert alive(int(path.read_text()))
        finally:
            with suppress(ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)
    assert rig.names(job_id)[0] == rig.names(behind)[0] == "submitted"
