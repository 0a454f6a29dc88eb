"""Runs jobs that mostly fail, while workers and projectors are killed: every attempt counts once.

    .venv/bin/python -m benchmarks.checks.faults.retries [--broker B] [--database D] [--jobs 2000] [--fails 0.6]
        [--seed 1]

Every job must end in one final state within its attempts. Afterwards the queues are empty, and the
view equals the tape, field by field. Reported: executions, which are more than attempts, because the jobs of a killed
worker are executed again.

Exits 0 only if everything held.
"""

import argparse
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import aio_pika
import anyio

from benchmarks.rig.installation import Installation, installation, options
from benchmarks.rig.jobs import MAX_ATTEMPTS
from benchmarks.rig.load import paced
from jobtape.broker import declare
from jobtape.schemas import fold
from jobtape.schemas.events import Failed, Retrying, Succeeded
from jobtape.schemas.job import Job, JobState
from tests.checker import Checker, Report
from tests.ledger import Ledger

PARTS = ("projector", "projector", "api", "worker", "worker", "worker")
LIMIT = 300.0
SECONDS = 0.02
QUIET = 3.0
"""Seconds for which all queues must be empty: a message that moves from one queue to another is on neither."""


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--fails", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    with installation(wanted) as (_, made):
        return run(made, wanted)


def run(made: Installation, wanted: argparse.Namespace) -> int:
    """Submit all jobs, kill parts meanwhile, wait, and check."""
    executed = made.folder / "executions"
    made.environment["BENCH_EXECUTIONS"] = str(executed)
    for part in PARTS:
        made.start(part)
    made.wait_ready()
    ledger, killed, ended = Ledger(), Counter[str](), threading.Event()
    item = {"type": "flaky", "payload": {"fails": wanted.fails, "seconds": SECONDS}}
    killer = threading.Thread(target=_kill, args=(made, random.Random(wanted.seed), ended, killed))
    killer.start()
    store = made.store()
    try:
        with made.client() as client:
            paced.submit(client, [item] * wanted.jobs, ledger, rate=500)
        started = time.monotonic()
        jobs = paced.wait_final(store, ledger, LIMIT)
        print(f"all {len(jobs)} jobs final {time.monotonic() - started:.1f} s after the last was accepted")
    finally:
        ended.set()
        killer.join()
    messages = anyio.run(_remaining_messages, made)
    checker = made.checker()
    report: Report = anyio.run(checker.check, store, ledger)
    jobs = paced.wait_final(store, ledger, LIMIT)
    store.close()
    print(f"killed {dict(killed)}; messages that remain on queues {messages}; {report}")
    wrong = _attempts(checker, jobs, executed)
    return 0 if not report.problems and not messages and not wrong and killed.total() else 1


def _kill(made: Installation, chance: random.Random, ended: threading.Event, killed: "Counter[str]") -> None:
    while not ended.wait(chance.uniform(0.5, 2.0)):
        part = chance.choice([part for part in made.parts if part.name in ("worker", "projector")])
        made.replace(part)
        killed[part.name] += 1


async def _remaining_messages(made: Installation) -> dict[str, int]:
    """Return how many messages are on which queue when the workers are idle and then stopped."""
    connection = await aio_pika.connect(made.environment["RABBITMQ_URL"])
    async with connection:
        deadline, quiet_since = time.monotonic() + LIMIT, time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - quiet_since < QUIET:
            if await _depths(connection, made):
                quiet_since = time.monotonic()
            await anyio.sleep(0.5)
        for part in made.parts:
            if part.name == "worker":
                await anyio.to_thread.run_sync(part.stop)
        return await _depths(connection, made)


async def _depths(connection: aio_pika.abc.AbstractConnection, made: Installation) -> dict[str, int]:
    depths = {}
    for queue in made.topology.declared_queues():
        # Messages stay on a stream.
        if queue.declared_arguments()["x-queue-type"] != "stream":
            found = await declare.depth(connection, queue.name)
            depths[queue.name] = found.messages if found is not None else 0
    return {name: messages for name, messages in depths.items() if messages}


def _attempts(checker: Checker, jobs: list[Job], executed: Path) -> list[str]:
    """Return what is wrong with the counted attempts, each of which must end once. Prints figures."""
    ends: dict[str, list[int]] = defaultdict(list)
    folded: dict[str, Job] = {}
    for event, cursor in checker.events():
        before = folded.get(event.subject)
        after = folded[event.subject] = fold.evolve(before, event, cursor)
        if after is not before and isinstance(event, Retrying | Succeeded | Failed):
            ends[event.subject].append(event.data.attempt)
    wrong = []
    for job in jobs:
        counted = ends[job.id]
        tried = sorted(set(counted))
        # An attempt that was given up may still succeed, which ends it a second time.
        if tried != list(range(1, job.attempt + 1)) or job.attempt > MAX_ATTEMPTS or len(counted) > job.attempt + 1:
            wrong.append(f"{job.id} ({job.state}, attempt {job.attempt}): attempts {counted}")
        if job.state is JobState.FAILED and job.attempt != MAX_ATTEMPTS:
            wrong.append(f"{job.id} failed in attempt {job.attempt}")
    lines = Counter(executed.read_text().split("\n")[:-1])
    ended = Counter((job.state.value, job.attempt) for job in jobs)
    print(f"jobs by (state, attempts): {dict(sorted(ended.items()))}")
    print(f"{lines.total()} executions of {len(lines)} attempts; at most {max(lines.values())} of one attempt")
    print("\n".join(wrong[:20]) or f"attempts are right, {MAX_ATTEMPTS} at most")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
