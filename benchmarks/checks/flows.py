"""Measures the fan-out and fan-in of a flow beside as many plain jobs, and a chain of 100.

    .venv/bin/python -m benchmarks.checks.flows [--broker B] [--database D] [--children 10000] [--rounds 3]

Plain jobs and flows take turns, plain jobs first and last. There are as many plain jobs, submitted in batches, as the
flow has children: one job returns a list, a mapped node has a job for each item, and one job gets all results. Both are
timed from the first request to the end of the last job in the view. The rate of a flow is compared with the mean of the
plain jobs before and after it. Reported: jobs a second, the ratio of each flow, the processor time of projector, worker
and API for each job, which other programs on the machine hardly change, the time of the chain, and the most memory that
projector and worker have during each flow.

Exits 0 only if the ratio is at least 0.4 in the median, the memory of the last flow is at most a fifth above that of
the first, and all results are right.
"""

import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

import httpx

from benchmarks.rig.installation import Installation, installation, options, until
from benchmarks.rig.load import paced
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
    plain: list[float] = []
    flows: list[float] = []
    most: list[float] = []
    right = True
    store = made.store()
    try:
        with made.client() as client:
            for n in range(rounds + 1):
                before = cpu(made)
                plain.append(children / plain_jobs(client, store, children))
                print(f"{plain[-1]:.0f} plain jobs/s, {1000 * (cpu(made) - before) / children:.1f} ms each", flush=True)
                if n == rounds:
                    break
                before = cpu(made)
                with most_memory(made) as peak:
                    seconds, result = flow(client, fan(children))
                flows.append(children / seconds)
                right = right and result == {"total": sum(range(children)) + children}
                most.append(max(peak))
                each = 1000 * (cpu(made) - before) / children
                print(f"{flows[-1]:.0f} children/s, {each:.1f} ms each; at most {most[-1]:.0f} MiB", flush=True)
            seconds, result = flow(client, chain())
            right = right and result == {f"n{CHAIN - 1}": CHAIN}
    finally:
        store.close()
    ratios = [rate / statistics.mean(beside) for rate, beside in zip(flows, pairwise(plain), strict=True)]
    print(f"a chain of {CHAIN}: {seconds:.1f} s, {1000 * seconds / CHAIN:.0f} ms a job; all results right: {right}")
    ratio, growth = statistics.median(ratios), most[-1] / most[0]
    shown = ", ".join(f"{each:.2f}" for each in ratios)
    print(f"ratios {shown}; memory of the last flow {growth:.2f} times that of the first")
    return 0 if right and ratio >= LEAST_RATIO and growth <= MOST_GROWTH else 1


def cpu(made: Installation) -> float:
    """Return the seconds of processor time that all parts have used so far."""
    return sum(part.cpu() for part in made.parts)


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
