"""The installation that all steps of the measurement use, with helpers for its jobs."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import httpx

from benchmarks.rig.installation import Installation, Part, until
from jobtape.schemas.job import Job
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker, Report

BATCH = 1000


@dataclass
class Setup:
    """An installation that executes ``jobs`` jobs before the first step."""

    made: Installation
    jobs: int
    executions: Path = field(init=False)
    store: Store = field(init=False)
    checker: Checker = field(init=False)
    projector: Part = field(init=False)
    _others: list[Part] = field(init=False)

    def begin(self) -> None:
        """Start the parts, with the bug in the handlers, and execute the jobs."""
        self.executions = self.made.folder / "executions"
        self.made.environment |= {"BENCH_EXECUTIONS": str(self.executions), "BENCH_BUG": "1"}
        self.start()
        started = time.monotonic()
        self.submit(range(self.jobs))
        self.wait_done()
        print(f"{self.jobs} jobs done in {time.monotonic() - started:.1f} s", flush=True)

    def start(self) -> None:
        """Start the parts."""
        self.projector = self.made.start("projector")
        self._others = [self.made.start("api"), self.made.start("worker", "--concurrency", "20")]
        self.made.wait_ready()
        self.store, self.checker = self.made.store(), self.made.checker()

    def end(self) -> None:
        """Stop the parts, and close the database."""
        for part in (*self._others, self.projector):
            part.stop()
        self.store.close()

    def submit(self, numbers: range) -> None:
        """Submit a ``double`` job for each number, in batches."""
        with self.made.client() as client:
            for first in range(numbers.start, numbers.stop, BATCH):
                items = [
                    {"type": "double", "payload": {"n": n}} for n in range(first, min(numbers.stop, first + BATCH))
                ]
                answer = client.post("/jobs/batch", json=items)
                assert answer.json()["accepted"] == len(items), answer.text[:500]

    def submit_scheduled(self, count: int) -> None:
        """Submit ``count`` jobs for tomorrow."""
        items = [{"type": "double", "payload": {"n": n}, "delay": 86_400} for n in range(count)]
        with self.made.client() as client:
            assert client.post("/jobs/batch", json=items).json()["accepted"] == count
        self.wait_done()

    def wait_done(self) -> None:
        """Wait until no job is open, and the view has read the whole tape."""
        with self.made.client() as client:

            def done() -> bool:
                found = client.get("/jobs", params={"state": ["queued", "running", "retrying"], "limit": 1})
                return found.status_code == 200 and found.json()["items"] == []

            until(done, "all jobs are done")
        anyio.run(self.checker.check, self.store)

    def check(self) -> Report:
        """Check that the view equals the tape, field by field."""
        report = anyio.run(self.checker.check, self.store)
        assert not report.problems, str(report)
        return report

    def builtin(self, job_type: str, **payload: Any) -> str:
        """Submit a built-in job, and return its id."""
        answer = httpx.post(
            f"{self.made.url}/jobs", json={"type": f"jobtape.{job_type}", "payload": payload}, timeout=60
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def outcome(self, job_id: str) -> dict[str, Any]:
        """Wait until the job has succeeded, and return it with the seconds that it ``took``."""
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
        """Kill the process that runs the job when its progress is ``after`` (0 to 1)."""

        def far_enough() -> bool:
            job = self.store.job(job_id)
            assert job is None or not job.final, "it ended before it could be killed: use more --jobs"
            return job is not None and job.progress is not None and job.progress.fraction >= after

        until(far_enough, "progress")
        for pid in children(self.projector.process.pid):
            os.kill(pid, signal.SIGKILL)

    def run(self, *command: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start ``jobtape`` with these arguments."""
        return subprocess.Popen(
            [sys.executable, "-m", "jobtape", *command], env={**self.made.environment, **environment}
        )


def same_view(rebuild: dict[str, Any]) -> int:
    """Check that a rebuild found no difference, and return how many jobs it has compared."""
    found = rebuild["result"]
    assert (found["changed"], found["missing"], found["added"]) == (0, 0, 0), found
    return int(found["compared"])


def children(pid: int) -> list[int]:
    """Return the ids of the child processes."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def all_jobs(store: Store) -> dict[str, Job]:
    """Return all jobs of the view but the built-in ones, without their cursors."""
    found: dict[str, Job] = {}
    before: str | None = None
    while page := store.list_jobs(JobQuery(before=before, limit=5000)):
        before = page[-1].id
        found |= {job.id: replace(job, cursor=0, imported=False) for job in page if not job.type.startswith("jobtape.")}
    return found


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
