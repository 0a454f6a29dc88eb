"""How fast a view is folded anew from its archive, and how much memory that takes.

    .venv/bin/python -m benchmarks.rebuild_rate [--jobs 333334] [--database URL]

Fills a view of its own (SQLite in a temporary folder, or the empty database given) with jobs of three events, rebuilds
it in this process and switches. Reported: events a second, and the resident memory at each tenth.

Exits 0 only if the new view says what the old one did and the memory stayed flat (within 64 MiB from the first tenth).
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.time_travel import fill
from jobtape.consumer.rebuild import Rebuilding
from jobtape.consumer.slices import Slice
from jobtape.view.store import Store

FLAT = 64.0
"""MiB."""


def main() -> int:
    """Fill, rebuild, report; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=333_334)
    parser.add_argument("--database")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(wanted.database or f"sqlite:///{folder}/view.db", patience=60)
        store.migrate()
        assert store.create_checkpoint(), "the database is not empty"
        began = time.monotonic()
        fill(store, wanted.jobs)
        events = 3 * wanted.jobs
        print(f"{store.dialect}: {events} events folded and committed at {events / (time.monotonic() - began):.0f}/s")
        code = rebuild(store, events)
        store.close()
        return code


def rebuild(store: Store, events: int) -> int:
    """As the job does it."""
    memory: list[float] = []

    def report(fraction: float, words: str) -> None:
        if fraction >= len(memory) / 10:
            memory.append(resident())
            print(f"{fraction:4.0%} {words}; {memory[-1]:.0f} MiB", flush=True)

    part = Slice(report, time.monotonic() + 3600, "events", share=0.95)
    working = Rebuilding(store, part)
    began = time.monotonic()
    state = working.from_archive(store.rebuilds.begin("benchmark"))
    folded = time.monotonic()
    found = working.differences(state, 5)
    compared = time.monotonic()
    working.switch(state)
    print(
        f"folded at {events / (folded - began):.0f} events/s, compared {found.compared} jobs in "
        f"{compared - folded:.1f} s, switched in {time.monotonic() - compared:.1f} s"
    )
    same = (found.changed, found.missing, found.added) == (0, 0, 0)
    return 0 if same and max(memory) - memory[1] <= FLAT else 1


def resident() -> float:
    """This process's memory in MiB (Linux only)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
