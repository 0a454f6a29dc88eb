"""``Prefer: wait=10`` on jobs that take a second: how long the answer takes, for one request and for 200 at once.

    .venv/bin/python -m benchmarks.waits [--at-once 200] [--singles 20] [--database D]

All 200 are sent on connections that are open already, and run at once in a worker with room for all. While they wait,
the API's threads and connections to the database are counted.

Exits 0 if every answer has the result, the singles took 1.2 s at most, and neither threads nor connections grew by more
than a tenth of the requests.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.installation import Installation, Part
from benchmarks.installation_options import options, place
from benchmarks.wire import Wire

NAP = {"type": "nap", "payload": {"seconds": 1.0}}


def main() -> int:
    """Run once; the exit status."""
    parser = options(__doc__)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--singles", type=int, default=20)
    wanted = parser.parse_args()
    with place(wanted, jobs="benchmarks.jobs") as (_, made):
        return asyncio.run(run(made, wanted))


async def run(made: Installation, wanted: argparse.Namespace) -> int:
    """One after the other, then all at once."""
    port = int(made.environment["JOBTAPE_PORT"])
    made.start("projector")
    api = made.start("api")
    made.start("worker", JOBTAPE_CONCURRENCY=str(wanted.at_once))
    await asyncio.to_thread(made.wait_ready)
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(Wire(made.url)) for _ in range(wanted.at_once)]
        await _nap(wires[0])
        singles = [await _nap(wires[0]) for _ in range(wanted.singles)]
        print(f"one at a time: {_in_words(singles)}", flush=True)
        before = _counted(api, port)
        requests = [asyncio.create_task(_nap(wire)) for wire in wires]
        await asyncio.sleep(0.8)
        during = _counted(api, port)
        waited = sum(not request.done() for request in requests)
        crowd = await asyncio.gather(*requests)
    print(f"{wanted.at_once} at once: {_in_words(crowd)}")
    print(
        f"while {waited} waited: {during[0]} threads (before: {before[0]}), {during[1]} other files and sockets "
        f"(before: {before[1]})"
    )
    few = max(during[0] - before[0], during[1] - before[1]) <= wanted.at_once / 10
    return 0 if few and waited >= wanted.at_once / 2 and max(singles) <= 1.2 else 1


async def _nap(wire: Wire) -> float:
    begun = time.monotonic()
    answer = await wire.request("POST", "/jobs", NAP, Prefer="wait=10")
    if answer.status != 200 or answer.json()["result"] != 1.0:
        raise RuntimeError(f"{answer.status} {answer.body.decode()}")
    return time.monotonic() - begun


def _in_words(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"median {statistics.median(ordered):.3f} s, longest {ordered[-1]:.3f} s"


def _counted(api: Part, port: int) -> tuple[int, int]:
    """Its threads, and its open files and sockets other than those of its clients (Linux only)."""
    process = Path(f"/proc/{api.process.pid}")
    threads = sum(1 for _ in (process / "task").iterdir())
    clients = _client_sockets(port)
    opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
    return threads, sum(1 for name in opened if name.removeprefix("socket:[").removesuffix("]") not in clients)


def _client_sockets(port: int) -> set[str]:
    """The inodes of the sockets on the API's own port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return {line.split()[9] for line in lines if int(line.split()[1].split(":")[1], 16) == port}


if __name__ == "__main__":
    sys.exit(main())
