"""Measures the fan-out and fan-in of a flow beside as many plain jobs, and a chain of 100.

    .venv/bin/python -m benchmarks.checks.flows [--broker B] [--database D] [--children 10000] [--rounds 3]

In each round as many plain jobs as the flow has children are submitted in batches, and then the flow: one job returns a
list, a mapped node has a job for each item, and one job gets all results. Both are timed from the first request to the
end of the last job in the view, so one round compares the same machine. Reported: jobs a second, the ratio of each
round, the time of the chain, and the memory of projector and worker: the most during each flow.

Exits 0 only if the flow's rate is at least 0.4 of that of plain jobs in the median, the memory in the last round is at
most a fifth above that of the first, and all results are right.
"""

import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx

from benchmarks.rig import paced
from benchmarks.rig.installation import Installation, installation, options, until
from benchmarks.rig.processes import usage
from jobtape.view.store import Store
from tests.ledger import Ledger

LIMIT: Final = 600.0
LEAST_RATIO: Final = 0.4
MOST_GROWTH: Final = 1.2
CHAIN: Final = 100
SAMPLE: Final = 0.2
"""Seconds between two looks at the memory."""
AT_ONCE: Final = 100_000.0
"""Jobs a second, more than are possible: the batches follow each other without a pause."""


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--children", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    with installation(wanted) as (_, made):
        return run(made, wanted.children, wanted.rounds)


def run(made: Installation, children: int, rounds: int) -> int:
    """Measure in turns, and print what was found."""
    for part in ("projector", "api", "worker"):
        made.start(part)
    made.wait_ready()
    ratios: list[float] = []
    most: list[float] = []
    right = True
    store = made.store()
    try:
        with made.client() as client:
            for n in range(1, rounds + 1):
                plain = children / plain_jobs(client, store, children)
                with most_memory(made) as peak:
                    seconds, result = flow(client, fan(children))
                rate = children / seconds
                right = right and result == {"total": sum(range(children)) + children}
                ratios.append(rate / plain)
                most.append(max(peak))
                print(
                    f"round {n}: {plain:.0f} plain jobs/s, {rate:.0f} children/s, ratio {ratios[-1]:.2f}; "
                    f"at most {most[-1]:.0f} MiB",
                    flush=True,
                )
            seconds, result = flow(client, chain())
            right = right and result == {f"n{CHAIN - 1}": CHAIN}
    finally:
        store.close()
    print(f"a chain of {CHAIN}: {seconds:.1f} s, {1000 * seconds / CHAIN:.0f} ms a job; all results right: {right}")
    ratio, growth = statistics.median(ratios), most[-1] / most[0]
    print(f"ratio {ratio:.2f} in the median, memory of the last round {growth:.2f} times that of the first")
    return 0 if right and ratio >= LEAST_RATIO and growth <= MOST_GROWTH else 1


def fan(children: int) -> dict[str, Any]:
    """Return the nodes of a fan-out and fan-in."""
    return {
        "upto": {"type": "upto", "payload": {"n": children}},
        "add": {"type": "add", "map": {"$from": "upto"}, "payload": {"x": {"$item": ""}, "y": 1}},
        "total": {"type": "total", "payload": {"parts": {"$from": "add"}}},
    }


def chain() -> dict[str, Any]:
    """Return the nodes of a chain, of which each job adds one."""
    nodes: dict[str, Any] = {"n0": {"type": "add", "payload": {"x": 0, "y": 1}}}
    for n in range(1, CHAIN):
        nodes[f"n{n}"] = {"type": "add", "payload": {"x": {"$from": f"n{n - 1}"}, "y": 1}}
    return nodes


def plain_jobs(client: httpx.Client, store: Store, number: int) -> float:
    """Run plain jobs, and return the seconds until all have ended."""
    ledger = Ledger()
    began = time.monotonic()
    paced.submit(client, [{"type": "add", "payload": {"x": 1, "y": 1}}] * number, ledger, rate=AT_ONCE)
    paced.wait_final(store, ledger, LIMIT)
    return time.monotonic() - began


def flow(client: httpx.Client, nodes: dict[str, Any]) -> tuple[float, Any]:
    """Run a flow. Returns the seconds until it has ended, and its result."""
    began = time.monotonic()
    job = client.post("/flows", json={"nodes": nodes}).raise_for_status().json()
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(client.get(f"/jobs/{job['id']}", headers={"Prefer": "wait=20"}).raise_for_status().json())
        return found["finished_at"] is not None

    until(ended, "the flow ends", LIMIT)
    return time.monotonic() - began, found["result"]


@contextmanager
def most_memory(made: Installation) -> Iterator[list[float]]:
    """Yield a list, which gets the memory of projector and worker in MiB again and again until the end of the block."""
    found: list[float] = []
    stop = threading.Event()
    pids = [part.process.pid for part in made.parts if part.name in ("projector", "worker")]

    def look() -> None:
        while not stop.wait(SAMPLE):
            found.append(sum(usage(pid).memory for pid in pids))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
