"""The installation that is played again, and what all steps do with it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import httpx

from benchmarks.installation import Installation, Part
from jobtape.schemas.job import Job
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker, Report

LIMIT = 600.0
BATCH = 1000


def until(condition: Callable[[], object], what: str, seconds: float = LIMIT) -> None:
    """Returns when the condition holds. Raises AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@dataclass
class Scene:
    """``jobs``: how many are done before the first step."""

    made: Installation
    jobs: int
    executions: Path = field(init=False)
    store: Store = field(init=False)
    checker: Checker = field(init=False)
    projector: Part = field(init=False)
    _others: list[Part] = field(init=False)

    def begin(self) -> None:
        """Start the parts, with the bug in, and let the jobs be done."""
        self.executions = self.made.folder / "executions"
        self.made.environment |= {"BENCH_EXECUTIONS": str(self.executions), "BENCH_BUG": "1"}
        self.start()
        began = time.monotonic()
        self.submit(range(self.jobs))
        self.wait_done()
        print(f"{self.jobs} jobs done in {time.monotonic() - began:.1f} s", flush=True)

    def start(self) -> None:
        """Start the parts."""
        self.projector = self.made.start("projector")
        self._others = [self.made.start("api"), self.made.start("worker", "--concurrency", "20")]
        self.made.wait_ready()
        self.store, self.checker = self.made.store(), self.made.checker()

    def end(self) -> None:
        """End the parts, and let go of the database."""
        for part in (*self._others, self.projector):
            part.stop()
        self.store.close()

    @property
    def tape_length(self) -> int:
        """Messages on the tape that the view has read."""
        checkpoint = self.store.checkpoint()
        assert checkpoint is not None
        assert checkpoint.offset is not None
        return checkpoint.offset + 1

    def submit(self, numbers: range) -> None:
        """So many doubles, in batches."""
        with self.made.client() as client:
            for first in range(numbers.start, numbers.stop, BATCH):
                items = [
                    {"type": "double", "payload": {"n": n}} for n in range(first, min(numbers.stop, first + BATCH))
                ]
                answer = client.post("/jobs/batch", json=items)
                assert answer.json()["accepted"] == len(items), answer.text[:500]

    def submit_scheduled(self, count: int) -> None:
        """Jobs for tomorrow."""
        items = [{"type": "double", "payload": {"n": n}, "delay": 86_400} for n in range(count)]
        with self.made.client() as client:
            assert client.post("/jobs/batch", json=items).json()["accepted"] == count
        self.wait_done()

    def wait_done(self) -> None:
        """Until no job is open and the view has read everything."""
        with self.made.client() as client:

            def done() -> bool:
                found = client.get("/jobs", params={"state": ["queued", "running", "retrying"], "limit": 1})
                return found.status_code == 200 and found.json()["items"] == []

            until(done, "all jobs are done")
        anyio.run(self.checker.check, self.store)

    def check(self) -> Report:
        """The view is what the tape says, field by field."""
        report = anyio.run(self.checker.check, self.store)
        assert not report.problems, str(report)
        return report

    def builtin(self, job_type: str, **payload: Any) -> str:
        """Submit one of Jobtape's own jobs; its id."""
        answer = httpx.post(
            f"{self.made.url}/jobs", json={"type": f"jobtape.{job_type}", "payload": payload}, timeout=60
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def outcome(self, job_id: str) -> dict[str, Any]:
        """The job when it has succeeded."""
        found: dict[str, Any] = {}

        def final() -> bool:
            answer = httpx.get(f"{self.made.url}/jobs/{job_id}", timeout=60)
            assert answer.status_code in (200, 503), answer.text
            found.update(answer.json())
            return found.get("state") in ("succeeded", "failed", "cancelled")

        until(final, f"the end of {job_id}")
        assert found["state"] == "succeeded", json.dumps(found)[:2000]
        took = _seconds(found["finished_at"]) - _seconds(found["started_at"])
        return {**found, "took": took}

    def kill_working_process(self, job_id: str, after: float) -> None:
        """SIGKILL the process that runs the job, once it is ``after`` of the way."""

        def far_enough() -> bool:
            job = self.store.job(job_id)
            assert job is None or not job.final, "it was over before it could be killed: more --jobs"
            return job is not None and job.progress is not None and job.progress.fraction >= after

        until(far_enough, "progress")
        for pid in children(self.projector.process.pid):
            os.kill(pid, signal.SIGKILL)

    def run(self, *command: str, **environment: str) -> "subprocess.Popen[bytes]":
        """``jobtape`` with these arguments."""
        return subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-m", "jobtape", *command], env={**self.made.environment, **environment}
        )


def children(pid: int) -> list[int]:
    """The processes that it started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def all_jobs(store: Store) -> dict[str, Job]:
    """Every job of the view but the built-in ones, without its place on the tape."""
    found: dict[str, Job] = {}
    before: str | None = None
    while page := store.list_jobs(JobQuery(before=before, limit=5000)):
        before = page[-1].id
        found |= {job.id: replace(job, cursor=0, imported=False) for job in page if not job.type.startswith("jobtape.")}
    return found


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
