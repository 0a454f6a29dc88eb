"""Deletes a work queue under load, with jobs on it and delays pending, and declares it again later.

    .venv/bin/python -m benchmarks.checks.faults.missing_queue [--broker B] [--database D] [--jobs 4000]

Half of the jobs use the queue that is deleted; every second job is delayed. The jobs of the other queue must start as
before: their lateness is printed, before the deletion and while the queue is missing. ``jobtape doctor`` must name the
missing queue. When a worker declares it again, no job may stay lost (JOBTAPE_RESCUE_AFTER=5).

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

from benchmarks.rig.installation import Installation, installation, options, percentile
from benchmarks.rig.load import paced
from jobtape.broker import declare
from jobtape.schemas.job import Job
from tests.checker import Report
from tests.ledger import Ledger

LIMIT = 300.0
RATE = 200.0
MISSING_FOR = 10.0
LATE = 0.25
"""Seconds by which the lateness (p99) of the other queue's jobs may exceed twice that of before the deletion, which
depends on the machine."""


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=4000)
    wanted = parser.parse_args()
    with installation(wanted) as (_, made):
        made.environment["JOBTAPE_RESCUE_AFTER"] = "5"
        return run(made, wanted.jobs)


def run(made: Installation, jobs: int) -> int:
    """Submit, delete the queue, run the doctor, declare the queue again, wait, and compare."""
    made.start("projector")
    made.start("api")
    made.start("worker", "--queues", "default")
    made.wait_ready()
    store, ledger = made.store(), Ledger()
    loading = threading.Thread(target=_load, args=(made, jobs, ledger))
    loading.start()
    time.sleep(jobs / RATE / 3)
    deleted = time.time()
    deleted_with = anyio.run(_keep_deleted, made)
    ended = time.time()  # before the doctor and a worker start, which delays the jobs on a small machine
    named = _doctor(made)
    declared = time.time()
    made.start("worker", "--queues", "side")
    loading.join()
    found = paced.wait_final(store, ledger, LIMIT)
    print(
        f"jobs on the queue at each deletion (an API that connects declares it again): {deleted_with}; all "
        f"{len(found)} jobs final {time.time() - declared:.1f} s after a worker declared it"
    )
    print(f"the doctor named the missing queue: {named}")
    report: Report = anyio.run(made.checker().check, store, ledger)
    store.close()
    others = [job for job in found if job.queue == "default"]
    before = [_late(job) for job in others if job.run_at is not None and job.run_at.timestamp() < deleted - 1]
    during = [_late(job) for job in others if job.run_at is not None and deleted < job.run_at.timestamp() < ended - 1]
    early, late = percentile(before, 0.99), percentile(during, 0.99)
    print(f"lateness of the other queue, p99: {early:.3f} s before, {late:.3f} s while one was missing")
    states = Counter((job.queue, job.state.value) for job in found)
    placed = Counter(job.placed for job in found if job.placed > 1)
    print(f"{dict(states)}; jobs by number of placements: {dict(placed)}; {report}")
    succeeded = {state for _, state in states} == {"succeeded"} and late < LATE + 2 * early
    return 0 if named and succeeded and not report.problems else 1


def _load(made: Installation, jobs: int, ledger: Ledger) -> None:
    items = []
    for n in range(jobs):
        item: dict[str, Any] = (
            {"type": "aside", "payload": {}} if n % 2 else {"type": "add", "payload": {"x": n, "y": 1}}
        )
        items.append({**item, "delay": 0.5 + (n % 40) / 8} if n % 4 > 1 else item)
    with made.client() as client:
        paced.submit(client, items, ledger, rate=RATE)


async def _keep_deleted(made: Installation) -> list[int]:
    """Keep the queue deleted for MISSING_FOR seconds. Return how many jobs were on it at each deletion."""
    name = made.topology.work_queue("side").name
    connection = await aio_pika.connect(made.environment["RABBITMQ_URL"])
    messages = []
    async with connection:
        channel = await connection.channel()
        ends = time.monotonic() + MISSING_FOR
        while time.monotonic() < ends:
            if await declare.depth(connection, name) is not None:
                messages.append((await channel.queue_delete(name)).message_count or 0)
            await anyio.sleep(0.5)
    return messages


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


if __name__ == "__main__":
    sys.exit(main())
