"""Runs a worker or a projector until SIGTERM: ``python -m tests.faults.part '<JSON>'``."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from jobtape.broker import link
from jobtape.consumer.projector.dispatch.flows import runner
from jobtape.consumer.projector.projector import Projector
from jobtape.consumer.worker.worker import Worker
from jobtape.producer.service.submission.order_check import recorder
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.faults import jobs, poison_jobs

JOB_TYPES = (
    *(jobs.add, jobs.nap, jobs.refuse, jobs.index),
    *(jobs.split, jobs.gather, jobs.model_step, jobs.model_items),
    *(poison_jobs.poison, poison_jobs.apoison, poison_jobs.good, poison_jobs.agood),
)


def make(spec: dict[str, Any]) -> Worker | Projector:
    """Return the part that ``spec`` describes."""
    topology = Topology(spec["namespace"]).with_queues(["default"])
    if spec["part"] == "projector":
        store = Store(spec["database"])
        return Projector(spec["url"], topology, store, owner=spec["name"], lease=spec["lease"])
    known = {each.name: each for each in JOB_TYPES}
    return Worker(
        spec["url"],
        topology,
        known,
        concurrency=spec.get("concurrency", 10),
        grace=5,
        max_result=2**20,
        record=recorder(known, Settings().limits, 2**20),
        ack_timeout=1800,
        name=spec["name"],
    )


async def run(spec: dict[str, Any]) -> None:
    """Run the part until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await make(spec).run(stop)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    link.HEARTBEAT = given["heartbeat"]
    runner.PAGE = given.get("page", runner.PAGE)  # type: ignore[misc]
    jobs.broken = Path(given["broken"]) if "broken" in given else None
    asyncio.run(run(given))
