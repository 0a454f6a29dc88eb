"""A work queue is deleted under load, with jobs on it and delays pending; later it is declared again.

    .venv/bin/python -m benchmarks.missing_queue [--broker B] [--database D] [--jobs 4000]

Half of the jobs are for the queue that goes missing, every second one is delayed. Meanwhile the others' must go on as
before: their lateness is printed, from before the deletion and from while the queue was missing. ``jobtape doctor``
must name it. When a worker declares it again, nothing may stay lost. Time settings are small (JOBTAPE_RESCUE_AFTER=5).

Exits 0 only if everything held.
"""

import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import aio_pika
import anyio

from benchmarks import paced
from benchmarks.installation import Installation
from benchmarks.installation_options import options, place
from jobtape.broker import declare
from jobtape.schemas.job import Job
from tests.checker import Report
from tests.ledger import Ledger

LIMIT = 300.0
RATE = 200.0
MISSING_FOR = 10.0
LATE = 0.25
"""Seconds of lateness (99 %) that the other queue's jobs may have while one is missing, beyond twice that of before: a
machine that is busy otherwise has its own."""


def main() -> int:
    """Run once; the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=4000)
    wanted = parser.parse_args()
    with place(wanted, jobs="benchmarks.repair_jobs", queues=("default", "side")) as (_, made):
        made.environment["JOBTAPE_RESCUE_AFTER"] = "5"
        return run(made, wanted.jobs)


def run(made: Installation, jobs: int) -> int:
    """Load, delete, look, declare again, wait, compare."""
    made.start("projector")
    made.start("api")
    made.start("worker", "--queues", "default")
    made.wait_ready()
    store, ledger = made.store(), Ledger()
    loading = threading.Thread(target=_load, args=(made, jobs, ledger))
    loading.start()
    time.sleep(jobs / RATE / 3)
    deleted = time.time()
    held = anyio.run(_keep_away, made)
    looked = time.time()  # from here on other programs are started, which costs the jobs time on a small machine
    named = _doctor(made)
    again = time.time()
    made.start("worker", "--queues", "side")
    loading.join()
    found = paced.wait_final(store, ledger, LIMIT)
    print(
        f"deleted with {held} jobs on it (once more each time that an API connected anew, which declares it); all "
        f"{len(found)} final {time.time() - again:.1f} s after it was there again"
    )
    print(f"the doctor named it: {named}")
    report: Report = anyio.run(made.checker().check, store, ledger)
    store.close()
    others = [job for job in found if job.queue == "default"]
    before = [_late(job) for job in others if job.run_at is not None and job.run_at.timestamp() < deleted - 1]
    during = [_late(job) for job in others if job.run_at is not None and deleted < job.run_at.timestamp() < looked - 1]
    print(f"the other queue's lateness, 99 %: {_p99(before):.3f} s before, {_p99(during):.3f} s while it was missing")
    states = Counter((job.queue, job.state.value) for job in found)
    print(f"{dict(states)}; placed again: {Counter(job.placed for job in found if job.placed > 1)}; {report}")
    well = {state for _, state in states} == {"succeeded"} and _p99(during) < LATE + 2 * _p99(before)
    return 0 if named and well and not report.problems else 1


def _load(made: Installation, jobs: int, ledger: Ledger) -> None:
    items = []
    for n in range(jobs):
        item: dict[str, Any] = {"type": "aside" if n % 2 else "here", "payload": {}}
        items.append({**item, "delay": 0.5 + (n % 40) / 8} if n % 4 > 1 else item)
    with made.client() as client:
        paced.submit(client, items, ledger, rate=RATE)


async def _keep_away(made: Installation) -> list[int]:
    """The queue is missing for MISSING_FOR seconds; how many jobs were on it, each time that it was deleted."""
    name = made.topology.work_queue("side").name
    connection = await aio_pika.connect(made.environment["RABBITMQ_URL"])
    held = []
    async with connection:
        channel = await connection.channel()
        ends = time.monotonic() + MISSING_FOR
        while time.monotonic() < ends:
            if await declare.depth(connection, name) is not None:
                held.append((await channel.queue_delete(name)).message_count or 0)
            await anyio.sleep(0.5)
    return held


def _doctor(made: Installation) -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "jobtape", "doctor"], env=made.environment, capture_output=True, text=True, check=False
    )
    wrong = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
    print("\n".join(wrong))
    return done.returncode == 1 and any("the work queue side is missing" in line for line in wrong)


def _late(job: Job) -> float:
    assert job.run_at is not None and job.started_at is not None
    return (job.started_at - job.run_at).total_seconds()


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else float("nan")


if __name__ == "__main__":
    sys.exit(main())
