"""Measures how long ``Prefer: wait=10`` takes with jobs of one second, one request after the other and 200 at once.

    .venv/bin/python -m benchmarks.checks.waits [--at-once 200] [--singles 20] [--database D]

The 200 requests use connections that are open already, and their jobs run at the same time in one worker. While they
wait, the threads and the files and sockets of the API are counted.

Exits 0 if every answer has the result, the singles took 1.2 s at most, and neither threads nor connections grew by more
than a tenth of the requests.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.rig.installation import Installation, Part, installation, options
from benchmarks.rig.load.wire import Wire

NAP = {"type": "nap", "payload": {"seconds": 1.0}}


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--singles", type=int, default=20)
    wanted = parser.parse_args()
    with installation(wanted) as (_, made):
        return asyncio.run(run(made, wanted))


async def run(made: Installation, wanted: argparse.Namespace) -> int:
    """Send requests one after the other, then all at once."""
    port = int(made.environment["JOBTAPE_PORT"])
    made.start("projector")
    api = made.start("api")
    made.start("worker", JOBTAPE_CONCURRENCY=str(wanted.at_once))
    await asyncio.to_thread(made.wait_ready)
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(Wire(made.url)) for _ in range(wanted.at_once)]
        await _wait(wires[0], NAP, 1.0)
        singles = [await _wait(wires[0], NAP, 1.0) for _ in range(wanted.singles)]
        print(f"one at a time: {_summary(singles)}", flush=True)
        before = _counted(api, port)
        requests = [asyncio.create_task(_wait(wire, NAP, 1.0)) for wire in wires]
        await asyncio.sleep(0.8)
        during = _counted(api, port)
        waited = sum(not request.done() for request in requests)
        parallel = await asyncio.gather(*requests)
    print(f"{wanted.at_once} at once: {_summary(parallel)}")
    print(
        f"while {waited} waited: {during[0]} threads (before: {before[0]}), {during[1]} other files and sockets "
        f"(before: {before[1]})"
    )
    few = max(during[0] - before[0], during[1] - before[1]) <= wanted.at_once / 10
    return 0 if few and waited >= wanted.at_once / 2 and max(singles) <= 1.2 else 1


async def _wait(wire: Wire, job: Mapping[str, object], result: float) -> float:
    started = time.monotonic()
    answer = await wire.request("POST", "/jobs", job, Prefer="wait=10")
    if answer.status != 200 or answer.json()["result"] != result:
        raise RuntimeError(f"{answer.status} {answer.body.decode()}")
    return time.monotonic() - started


def _summary(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[int(len(ordered) * 0.99)]
    return f"median {statistics.median(ordered):.4f} s, p99 {p99:.4f} s, longest {ordered[-1]:.4f} s"


def _counted(api: Part, port: int) -> tuple[int, int]:
    """Return how many threads, and how many files and sockets but those of clients, are open (Linux only)."""
    process = Path(f"/proc/{api.process.pid}")
    threads = sum(1 for _ in (process / "task").iterdir())
    clients = _client_sockets(port)
    opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
    return threads, sum(1 for name in opened if name.removeprefix("socket:[").removesuffix("]") not in clients)


def _client_sockets(port: int) -> set[str]:
    """Return the inodes of the sockets on the port of the API."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return {line.split()[9] for line in lines if int(line.split()[1].split(":")[1], 16) == port}


if __name__ == "__main__":
    sys.exit(main())
