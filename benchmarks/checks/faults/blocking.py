"""Blocks the worker's event loop for a minute in a handler: the connections stay open, and the job ends normally.

    .venv/bin/python -m benchmarks.checks.faults.blocking [--broker B] [--database D] [--seconds 60]

The worker connects through a proxy, which counts its connections, with the usual heartbeat. The blocking handler is a
coroutine on the worker's loop. Other jobs, whose handlers run in threads, are submitted one after the other meanwhile.
Exits 0 only if the worker never connected again, the job had one execution and succeeded, and the other jobs succeeded
while the loop was blocked.
"""

import asyncio
import sys
import time
from typing import Any

import httpx

from benchmarks.rig.installation import Installation, installation, options
from jobtape.broker.link import HEARTBEAT
from tests.broker.proxy import Proxy

LIMIT = 60.0
"""Seconds for anything beside the blocking."""
PAUSE = 1.0
"""Seconds between two of the other jobs."""
SPARE = 5.0
"""Seconds before the end of the blocking at which the last of the other jobs is submitted."""


async def until_final(client: httpx.AsyncClient, job_id: str, seconds: float) -> dict[str, Any]:
    """Wait until the job is final, and return it. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            job: dict[str, Any] = (await client.get(f"/jobs/{job_id}")).raise_for_status().json()
            if job["finished_at"] is not None:
                return job
            await asyncio.sleep(0.02)


async def submit(client: httpx.AsyncClient, job_type: str, payload: dict[str, Any]) -> str:
    """Submit a job, and return its id."""
    answer = await client.post("/jobs", json={"type": job_type, "payload": payload})
    return str(answer.raise_for_status().json()["id"])


async def run(made: Installation, broker_url: str, seconds: float) -> bool:
    """Measure, and return whether everything held."""
    made.start("projector")
    made.start("api")
    took: list[float] = []
    async with (
        Proxy(broker_url) as proxy,
        httpx.AsyncClient(base_url=made.url, timeout=30, trust_env=False) as client,
    ):
        worker = made.start("worker", RABBITMQ_URL=proxy.url)
        await asyncio.to_thread(made.wait_ready)
        await until_final(client, await submit(client, "add", {"x": 1, "y": 1}), LIMIT)
        before = proxy.seen
        started = time.monotonic()
        blocked = await submit(client, "blocks", {"seconds": seconds})
        while time.monotonic() - started < seconds - SPARE:
            submitted = time.monotonic()
            await until_final(client, await submit(client, "add", {"x": 1, "y": 2}), LIMIT)
            took.append(time.monotonic() - submitted)
            await asyncio.sleep(PAUSE)
        early = (await client.get(f"/jobs/{blocked}")).json()["finished_at"] is not None
        job = await until_final(client, blocked, seconds + LIMIT)
        lasted = time.monotonic() - started
        events = (await client.get(f"/jobs/{blocked}/events")).raise_for_status().json()["items"]
        new, still_open = proxy.seen - before, proxy.connections
        lost = worker.output().count("was lost")
    names = [event["type"].rpartition(".")[2] for event in events]
    print(f"heartbeat {HEARTBEAT} s, blocked for {seconds:g} s: {job['state']} {lasted:.1f} s after its submission")
    print(f"its events: {', '.join(names)}; attempt {job['attempt']}, result {job['result']!r}")
    print(f"meanwhile {len(took)} other jobs, each from submission to readable result within {max(took):.2f} s")
    print(f"connections of the worker: {before} before, {new} new, {still_open} open, {lost} reported as lost")
    right = (job["state"], job["result"], names) == ("succeeded", "done", ["submitted", "started", "succeeded"])
    return right and (new, still_open, lost) == (0, before, 0) and not early


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    wanted = parser.parse_args()
    with installation(wanted) as (broker, made):
        return 0 if asyncio.run(run(made, broker.url, wanted.seconds)) else 1


if __name__ == "__main__":
    sys.exit(main())
