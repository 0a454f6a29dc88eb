"""Many failed jobs, redriven by two people at once with ``jobtape redrive``: one next run each.

    .venv/bin/python -m benchmarks.redrive [--broker B] [--database D] [--jobs 500]

Each of the two has an API process of their own. First both look with ``--dry-run``, which must say the same number and
write nothing to the tape. Afterwards every job has one run 2 in one accepted history, and the view is what the tape
says, field by field. Reported: what each was told, and the executions.

Exits 0 only if everything held.
"""

import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

import anyio

from benchmarks import paced
from benchmarks.installation import Installation
from benchmarks.installation_options import options, place
from jobtape.schemas.events import JobEvent, Redriven, Requeued
from jobtape.schemas.job import JobState
from jobtape.view.store import Store
from tests.checker import Checker, Report
from tests.ledger import Ledger
from tools.processes.ports import free_port

LIMIT = 300.0


def main() -> int:
    """Run once; the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    wanted = parser.parse_args()
    with place(wanted, jobs="benchmarks.repair_jobs", queues=("default", "side")) as (_, made):
        return run(made, wanted.jobs)


def run(made: Installation, jobs: int) -> int:
    """Let all fail, look, redrive twice at once, wait, compare."""
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
        looked = [_redrive(made, url, "--dry-run") for url in urls]
        anyio.run(checker.read)
        unchanged = sum(1 for _ in checker.events()) == before
        print(f"--dry-run: {[delivered['matched'] for delivered in looked]} match, the tape is unchanged: {unchanged}")
        began = time.monotonic()
        with ThreadPoolExecutor(2) as people:
            delivered = list(people.map(lambda url: _redrive(made, url, "--yes"), urls))
        print(f"at once, in {time.monotonic() - began:.1f} s: {delivered}")
        _wait(store, ledger)
        print(f"all succeeded in run 2 {time.monotonic() - began:.1f} s after they were redriven")
        report: Report = anyio.run(checker.check, store, ledger)
        placed = _placements(checker)
    finally:
        store.close()
    print(f"placements a job: {dict(placed)}; {report}")
    counted = all(each["accepted"] == each["matched"] for each in delivered)
    same = {each["matched"] for each in looked} == {jobs}
    return 0 if same and unchanged and counted and set(placed) == {(2, 1)} and not report.problems else 1


def _redrive(made: Installation, url: str, how: str) -> dict[str, int]:
    command = [sys.executable, "-m", "jobtape", "redrive", "--type", "second-time", how, "--json", "--url", url]
    done = subprocess.run(command, env=made.environment, capture_output=True, text=True, check=True)  # noqa: S603
    delivered = json.loads(done.stdout)
    return {name: delivered[name] for name in ("matched", "accepted", "refused", "unknown")}


def _wait(store: Store, ledger: Ledger) -> None:
    deadline = time.monotonic() + LIMIT
    while True:
        jobs = store.jobs(ledger.ok).values()
        open_yet = [job for job in jobs if (job.state, job.run) != (JobState.SUCCEEDED, 2)]
        if not open_yet:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(open_yet)} are not through after {LIMIT:g} s, such as {open_yet[0]}")
        time.sleep(0.2)


def _placements(checker: Checker) -> "Counter[tuple[int, int]]":
    """(highest run, how often the work of redriven runs was placed) -> how many jobs."""
    of_job: dict[str, list[JobEvent]] = defaultdict(list)
    for event, _ in checker.events():
        if isinstance(event, Redriven | Requeued):
            of_job[event.subject].append(event)
    return Counter(
        (max(event.data.run for event in events), sum(isinstance(event, Requeued) for event in events))
        for events in of_job.values()
    )


if __name__ == "__main__":
    sys.exit(main())
