"""Measures how late thousands of jobs with random delays start, also when the broker is killed. None starts early.

    .venv/bin/python -m benchmarks.checks.faults.delays [--kill] [--broker B] [--database D] [--jobs 5000] [--rate 125]

A job's lateness is ``started_at`` minus ``run_at``. It contains the time until the projector has placed the
work, and the time to the worker. Without ``--kill`` the 99th percentile must be below ``--p99``
milliseconds. With ``--kill`` (and ``--broker`` node or container) the broker is killed in the middle: no job may be
lost or run twice, and all must have started 15 s after their time or after the broker's return. The view is compared
with the tape, field by field.

Exits 0 only if everything held.
"""

import argparse
import random
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial

import anyio

from benchmarks.rig.installation import Installation, installation, options, percentile
from benchmarks.rig.load import paced
from benchmarks.rig.servers.brokers import Broker
from jobtape.schemas.job import Job
from tests.checker import Report
from tests.ledger import Ledger

AWAY = 3.0
"""Seconds between killing and starting the broker."""
CATCH_UP = 15.0
"""Seconds after its time or the broker's return within which a job must start."""
LIMIT = 120.0


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=125, help="jobs a second")
    parser.add_argument("--shortest", type=float, default=0.1)
    parser.add_argument("--longest", type=float, default=20)
    parser.add_argument("--p99", type=float, default=200, help="milliseconds")
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    if wanted.kill and wanted.broker == "url":
        parser.error("--kill needs --broker node or container")
    with installation(wanted) as (chosen, made):
        return run(made, chosen, wanted)


def run(made: Installation, chosen: Broker, wanted: argparse.Namespace) -> int:
    """Submit at a fixed rate, kill the broker if ``--kill`` is given, wait, and check."""
    chance = random.Random(wanted.seed)
    items = [
        {"type": "add", "payload": {"x": n, "y": 1}, "delay": round(chance.uniform(wanted.shortest, wanted.longest), 3)}
        for n in range(wanted.jobs)
    ]
    for part in ("projector", "api", "worker"):
        made.start(part)
    made.wait_ready()
    ledger = Ledger()
    back: list[datetime] = []
    killer = threading.Thread(target=_kill, args=(chosen, wanted.jobs / wanted.rate / 2, back))
    if wanted.kill:
        killer.start()
    with made.client() as client:
        took = paced.submit(client, items, ledger, rate=wanted.rate)
    print(f"accepted {len(ledger.ok)}, unknown {len(ledger.unknown)} in {took:.1f} s")
    if wanted.kill:
        killer.join()
        if not back:
            print("the broker did not come back")
            return 1
    store = made.store()
    jobs = paced.wait_final(store, ledger, wanted.longest + LIMIT)
    if ledger.unknown:
        time.sleep(max(0.0, (max(_due(job) for job in jobs) - datetime.now(UTC)).total_seconds()) + CATCH_UP)
        jobs = paced.wait_final(store, ledger, LIMIT)
    report: Report = anyio.run(partial(made.checker().check, store, ledger, timeout=120))
    store.close()
    half = {job.id for job in jobs if not job.final}
    if half:
        print(f"{len(half)} unknown submissions are on the tape and on no queue: their client has to submit them again")
    problems = [each for each in report.problems if not any(each.startswith(f"stuck: {job_id}") for job_id in half)]
    done = [job for job in jobs if job.final]
    held = _check_lateness(done, back[0] if back else None, wanted.p99)
    states = Counter(job.state.value for job in done)
    print(f"states {dict(states)}; {report}")
    return 0 if held and not problems and set(states) == {"succeeded"} else 1


def _kill(chosen: Broker, after: float, back: list[datetime]) -> None:
    time.sleep(after)
    chosen.kill()
    time.sleep(AWAY)
    started = time.monotonic()
    chosen.start()
    back.append(datetime.now(UTC))
    print(f"broker killed after {after:g} s, unavailable for {AWAY + time.monotonic() - started:.1f} s")


def _check_lateness(jobs: list[Job], back: datetime | None, limit: float) -> bool:
    """Print how late jobs started, and return whether that is allowed. ``limit`` is the highest p99 in milliseconds."""
    late = sorted((_started(job) - _due(job)).total_seconds() * 1000 for job in jobs)
    early = sum(ms < 0 for ms in late)
    p50, p99 = percentile(late, 0.5), percentile(late, 0.99)
    print(
        f"{early} early; lateness p50 {p50:.0f} ms, p99 {p99:.0f} ms, at most {late[-1]:.0f} ms (least {late[0]:.1f})"
    )
    if back is None:
        return early == 0 and p99 < limit
    last = max((_started(job) - max(_due(job), back)).total_seconds() for job in jobs)
    after = sum(_due(job) > back for job in jobs)
    print(f"{after} were due after the return; the last started {last:.1f} s after its time or the broker's return")
    return early == 0 and last <= CATCH_UP


def _due(job: Job) -> datetime:
    assert job.run_at is not None
    return job.run_at


def _started(job: Job) -> datetime:
    assert job.started_at is not None, f"{job.id} is {job.state} and never started"
    return job.started_at


if __name__ == "__main__":
    sys.exit(main())
