"""Kills workers between the outcome that names follow-ups and the ack, again and again: each follow-up exists once.

    .venv/bin/python -m benchmarks.checks.faults.follow_ups [--broker B] [--hits 1000]

Jobs with three children and a continuation run on a worker that kills itself with SIGKILL before it acknowledges the
first deliveries of such jobs, and is started again. So their outcomes are on the tape, and the jobs are executed a
second time. That goes on until it has happened to ``--hits`` jobs. Afterwards every job has every follow-up once, in
the view and on the tape, with the right result, and the view equals the tape.

Exits 0 only if everything held.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rig.installation import options
from benchmarks.rig.servers.brokers import broker
from jobtape.broker.declare import remove_namespace
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.faults.test_follow_ups import check_follow_ups, split_while_workers_die
from tests.namespaces import some_topology


def main() -> int:
    """Run the check, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--hits", type=int, default=1000)
    wanted = parser.parse_args()
    with broker(wanted.broker) as chosen, tempfile.TemporaryDirectory(prefix="jobtape-bench-") as folder:
        asyncio.run(run(chosen.url, Path(folder), wanted))
    return 0


async def run(url: str, folder: Path, wanted: argparse.Namespace) -> None:
    """Kill workers, and compare. Raises AssertionError if something did not hold."""
    topology = some_topology()
    store = Store(f"sqlite:///{folder / 'view.db'}")
    store.migrate()
    began = time.monotonic()
    try:
        async with Rig(url, topology) as rig, rig.projector(store):
            jobs, killed = await split_while_workers_die(rig, folder / "workers.log", wanted.hits)
            found = await check_follow_ups(rig, store, jobs)
    finally:
        store.close()
        await remove_namespace(url, topology)
    print(f"{killed} in {time.monotonic() - began:.0f} s: {found}")


if __name__ == "__main__":
    sys.exit(main())
