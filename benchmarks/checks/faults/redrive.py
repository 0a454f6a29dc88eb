"""Redrives the same failed jobs with two ``jobtape redrive`` commands at once: each job gets one new run.

    .venv/bin/python -m benchmarks.checks.faults.redrive [--broker B] [--database D] [--jobs 500]

The two commands use different API processes. First both use ``--dry-run``, which must print the same number and write
nothing to the tape. After the redrive every job has exactly one run 2, and the view equals the tape, field by field.
Reported: the output of both commands, and the executions.

Exits 0 only if everything held.
"""

import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio

from benchmarks.rig.installation import Installation, installation, options, until
from benchmarks.rig.load import paced
from jobtape.schemas.events import JobEvent, Placed, Redriven
from jobtape.schemas.job import JobState
from jobtape.view.store import Store
from tests.checker import Checker, Report
from tests.ledger import Ledger
from tools.processes.ports import free_port

LIMIT = 300.0


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    wanted = parser.parse_args()
    with installation(wanted) as (_, made):
        return run(made, wanted.jobs)


def run(made: Installation, jobs: int) -> int:
    """Let all jobs fail, redrive them twice at once, wait, and compare."""
    ports = [made.environment["JOBTAPE_PORT"], str(free_port())]
    made.start("projector")
    for port in ports:
        made.start("api", JOBTAPE_PORT=port)
    made.start("worker")
    made.wait_ready()
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    store, ledger, checker = made.store(), Ledger(), made.checker()
    try:
        with made.client() as client:
            paced.submit(client, [{"type": "second-time", "payload": {}}] * jobs, ledger, rate=1000)
        paced.wait_final(store, ledger, LIMIT)
        anyio.run(checker.read)
        before = sum(1 for _ in checker.events())
        dry = [_redrive(made, url, "--dry-run") for url in urls]
        anyio.run(checker.read)
        unchanged = sum(1 for _ in checker.events()) == before
        print(f"--dry-run: {[each['matched'] for each in dry]} match, the tape is unchanged: {unchanged}")
        started = time.monotonic()
        with ThreadPoolExecutor(2) as executor:
            bulks = list(executor.map(lambda url: _redrive(made, url, "--yes"), urls))
        counts = [each["result"] for each in bulks]
        print(f"both at once, in {time.monotonic() - started:.1f} s: {counts}")
        until(lambda: _all_succeeded(store, ledger), "all jobs have succeeded in run 2", LIMIT)
        print(f"all succeeded in run 2 {time.monotonic() - started:.1f} s after they were redriven")
        ledger.ok += [each["id"] for each in bulks]
        report: Report = anyio.run(checker.check, store, ledger)
        placed = _placements(checker)
    finally:
        store.close()
    print(f"jobs by (run, placements): {dict(placed)}; {report}")
    counted = all(each["accepted"] == each["matched"] for each in counts)
    same = {each["matched"] for each in dry} == {jobs}
    return 0 if same and unchanged and counted and set(placed) == {(2, 1)} and not report.problems else 1


def _redrive(made: Installation, url: str, how: str) -> dict[str, Any]:
    """Return the preview with ``--dry-run``, else the job that has redriven the others."""
    command = [sys.executable, "-m", "jobtape", "redrive", "--type", "second-time", how, "--json", "--url", url]
    done = subprocess.run(command, env=made.environment, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _all_succeeded(store: Store, ledger: Ledger) -> bool:
    return all((job.state, job.run) == (JobState.SUCCEEDED, 2) for job in store.jobs(ledger.ok).values())


def _placements(checker: Checker) -> "Counter[tuple[int, int]]":
    """Count jobs by their highest run and the number of placements of redriven runs."""
    of_job: dict[str, list[JobEvent]] = defaultdict(list)
    for event, _ in checker.events():
        if isinstance(event, Redriven | Placed):
            of_job[event.subject].append(event)
    return Counter(
        (max(event.data.run for event in events), sum(isinstance(event, Placed) for event in events))
        for events in of_job.values()
    )


if __name__ == "__main__":
    sys.exit(main())
