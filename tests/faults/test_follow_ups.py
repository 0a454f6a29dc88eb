"""Each follow-up exists once, however often workers are killed between the outcome that names it and the ack."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from jobtape.schemas.events import Continued, Submitted, Succeeded
from jobtape.schemas.job import JobState
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.faults.parts import ROOT
from tests.faults.scale import SCALE, scaled
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180 * max(1.0, SCALE))]

HITS = scaled(60)
"""Outcomes after which a worker is killed before the ack."""
CHILDREN = 3
AT_ONCE = 30
"""Jobs that are open at the same time."""


@contextmanager
def dying_workers(rig: Rig, log: Path) -> Iterator[Path]:
    """Run workers that are killed again and again. Yields the file with a line for each kill."""
    spec = {"part": "worker", "name": "w", "heartbeat": 10, "lease": 1.0}
    spec |= {"namespace": rig.topology.namespace, "url": rig.url, "concurrency": 10}
    command = [sys.executable, "-m", "tests.faults.dying_worker", json.dumps(spec)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=file, stderr=file)
        try:
            yield log
            assert process.poll() is None, log.read_text()[-2000:]
        finally:
            process.communicate(timeout=10)


async def split_while_workers_die(rig: Rig, log: Path, hits: int) -> tuple[list[str], str]:
    """Run jobs with follow-ups until workers were killed before so many acks. Returns the jobs' ids, and how often."""
    jobs: list[str] = []

    def number_of(what: str) -> int:
        return log.read_text().count(what)

    with dying_workers(rig, log):
        while number_of("hit") < hits:
            jobs += [await rig.submit("split", {"n": CHILDREN}) for _ in range(AT_ONCE)]
            await eventually(partial(_all_ended, rig, len(jobs) * (CHILDREN + 2)), 60, what="all have ended")
    return jobs, f"{number_of('killed')} workers were killed before {number_of('hit')} acks"


def _all_ended(rig: Rig, number: int) -> bool:
    return len({event.subject for event in rig.events if isinstance(event, Succeeded)}) == number


async def check_follow_ups(rig: Rig, store: Store, jobs: list[str]) -> str:
    """Return what was found. Raises AssertionError unless each job has each follow-up once and the right result."""
    await eventually(lambda: all(job.final for job in store.jobs(jobs).values()), 60)
    for job_id in jobs:
        job = store.job(job_id)
        assert job is not None and job.result == sum(2 * n for n in range(CHILDREN)), job
        below = store.list_jobs(JobQuery(flow=job_id, limit=100))
        assert Counter(each.node for each in below) == Counter([*map(str, range(CHILDREN)), "then"])
        assert all(each.state is JobState.SUCCEEDED for each in below)
    submitted = Counter(event.subject for event in rig.events if isinstance(event, Submitted))
    assert len(submitted) == len(jobs) * (CHILDREN + 2) and set(submitted.values()) == {1}
    executed = sum(isinstance(event, Continued) for event in rig.events)
    report = await Checker(rig.url, rig.topology).check(store)
    assert not report.problems, str(report)
    return f"{len(jobs)} jobs named follow-ups {executed} times; {report}"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_each_follow_up_exists_once_when_workers_die_before_the_ack(
    rig: Rig, store: Store, tmp_path: Path
) -> None:
    async with rig.projector(store):
        jobs, killed = await split_while_workers_die(rig, tmp_path / "workers.log", HITS)
        print(killed, await check_follow_ups(rig, store, jobs))
        repeated = sum(isinstance(event, Continued) for event in rig.events) - len(jobs)
        assert repeated > 0
