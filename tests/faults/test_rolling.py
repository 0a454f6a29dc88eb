"""Tests a rolling deployment: worker processes get SIGTERM while new ones start."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from jobtape.view.store import Store
from tests.checker import Checker
from tests.cli.programs import COMMAND, Program
from tests.consumer.installation import Rig, order_event
from tests.faults.load import all_done
from tests.faults.scale import scaled
from tests.ledger import Ledger
from tests.namespaces import environment_for
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

OLD = """
import os, time, asyncio
from jobtape import job

@job("mark")
async def mark(path: str, name: str, seconds: float) -> None:
    mark_start(path, name)
    await asyncio.sleep(seconds)

@job("mark-thread")
def mark_thread(path: str, name: str, seconds: float) -> None:
    mark_start(path, name)
    time.sleep(seconds)

def mark_start(path: str, name: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{name}\\n".encode())
    os.close(file)
"""
NEW = """
from jobtape import job
from old_jobs import mark, mark_thread

@job("brand-new")
def brand_new() -> str:
    return "new"
"""
JOBS = scaled(400)
CHANGES = 3

StartWorker = Callable[[str], Program]


@pytest.fixture
def start_worker(rig: Rig, tmp_path: Path) -> Iterator[StartWorker]:
    """A function that starts ``jobtape worker`` with a module of jobs."""
    (tmp_path / "old_jobs.py").write_text(OLD)
    (tmp_path / "new_jobs.py").write_text(NEW)
    programs: list[Program] = []
    env = {name: value for name, value in os.environ.items() if not name.startswith("JOBTAPE_")}
    env |= environment_for(rig.url, rig.topology) | {"JOBTAPE_GRACE_PERIOD": "20"}

    def start(jobs: str) -> Program:
        programs.append(Program([*COMMAND, "worker", "--jobs", jobs], env, tmp_path))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


async def test_new_job_type_waits_for_a_new_worker(rig: Rig, start_worker: StartWorker, view: Store) -> None:
    async with rig.projector(view):
        old = [start_worker("old_jobs") for _ in range(2)]
        for program in old:
            program.line_with("taking jobs")
        jobs = [await rig.submit("brand-new") for _ in range(20)]
        await eventually(
            lambda: all("deferred" in rig.names(job_id) for job_id in jobs),
            what="the old workers have deferred the jobs",
        )
        new = start_worker("new_jobs")
        new.line_with("taking jobs")
        for program in old:
            program.send(signal.SIGTERM)
        for job_id in jobs:
            outcome = await rig.outcome(job_id, 60)
            assert (outcome.name, outcome.data.attempt) == ("succeeded", 1)
            assert set(rig.names(job_id)) <= {"submitted", "deferred", "placed", "started", "succeeded"}, (
                "no attempt more"
            )
        assert [program.code() for program in old] == [0, 0]
        report = await Checker(rig.url, rig.topology).check(view)
    assert not report.problems, str(report)


async def test_no_job_starts_twice_when_workers_are_replaced(
    rig: Rig, start_worker: StartWorker, view: Store, tmp_path: Path
) -> None:
    """Each worker in turn gets SIGTERM when a share of the jobs has started. All have time to finish."""
    ledger, marks = Ledger(), tmp_path / "marks"
    marks.touch()
    async with rig.projector(view):
        workers = [start_worker("old_jobs") for _ in range(2)]
        for program in workers:
            program.line_with("taking jobs")
        for n in range(JOBS):
            payload = {"path": str(marks), "name": str(n), "seconds": 0.02 + n % 7 / 50}
            event = order_event(rig.topology, "mark" if n % 2 else "mark-thread", payload)
            await ledger.submit(rig.publisher, event)
        for change in range(1, CHANGES + 1):
            share = JOBS * change // (CHANGES + 1)
            await eventually(partial(_has_lines, marks, share), 60, what=f"{share} of {JOBS} have started")
            workers[0].send(signal.SIGTERM)
            workers = [*workers[1:], start_worker("old_jobs")]
            workers[-1].line_with("taking jobs")
        await all_done(rig, ledger, 90)
        for program in workers:
            program.send(signal.SIGTERM)
            assert program.code() == 0
        report = await Checker(rig.url, rig.topology).check(view, ledger)
    assert not report.problems, str(report)
    twice = {name: n for name, n in Counter(marks.read_text().split()).items() if n > 1}
    assert not twice
    assert len(marks.read_text().split()) == JOBS
    assert await rig.depth() == 0


def _has_lines(file: Path, number: int) -> bool:
    return len(file.read_text().split()) >= number
