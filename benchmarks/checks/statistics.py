"""Measures which part of the projector's processor time the statistics take: the sums by minute and the failure groups.

    .venv/bin/python -m benchmarks.checks.statistics [--jobs 6000] [--rounds 5] [--batches 500,50,10]

Folds and commits the same tape of several job types, with and without statistics in turn, each time into a new SQLite
view. What is measured is the processor time of the process, which other load hardly changes. The reader of the stream
and the relay are left out, so the projector's own share is smaller than the figure.

Exits 0 only if the share is below LARGEST_SHARE for each size of a batch.
"""

import argparse
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from unittest.mock import patch

from benchmarks.rig.shop_tape import day
from jobtape.broker.stream_reader import TapeMessage
from jobtape.consumer import folding
from jobtape.process import garbage
from jobtape.schemas.events import encode
from jobtape.view.store import Store
from jobtape.view.tallies import Tally

LARGEST_SHARE: Final = 0.05
A_SECOND: Final = 100
"""Jobs that are submitted in each second of the tape."""


class NoTally:
    """Counts nothing."""

    def add(self, *_: object) -> None:
        """Take an event."""

    def move(self, *_: object) -> None:
        """Take a job."""

    def sums(self) -> dict[object, int]:
        """Return nothing."""
        return {}

    def failures(self) -> list[object]:
        """Return nothing."""
        return []


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", default="500,50,10")
    wanted = parser.parse_args()
    garbage.collect_rarely()
    events = day(wanted.jobs, datetime.now(UTC), seconds=wanted.jobs / A_SECOND)
    tape = [TapeMessage(n, encode(event), "event") for n, event in enumerate(events)]
    shares = [_share(tape, int(size), wanted.rounds) for size in wanted.batches.split(",")]
    return 0 if max(shares) < LARGEST_SHARE else 1


def _share(tape: list[TapeMessage], size: int, rounds: int) -> float:
    """Return the share of the statistics in batches of this size."""
    costs: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * rounds):
        counted = turn % 4 in (0, 3)
        costs[counted].append(_fold(tape, size, counted=counted))
    # The smallest: whatever else the machine does only adds to it.
    with_them, without = min(costs[True]), min(costs[False])
    share = 1 - without / with_them
    medians = statistics.median(costs[True]), statistics.median(costs[False])
    per_event = 1e6 / len(tape)
    print(
        f"batches of {size}: {with_them * per_event:.1f} µs an event with, {without * per_event:.1f} without: "
        f"{share:.1%} (of the medians: {1 - medians[1] / medians[0]:.1%})",
        flush=True,
    )
    return share


def _fold(tape: list[TapeMessage], size: int, *, counted: bool) -> float:
    """Return the seconds of processor time to fold and commit the tape into a new view."""
    with tempfile.TemporaryDirectory(prefix="jobtape-statistics-") as folder:
        url = f"sqlite:///{Path(folder) / 'view.db'}"
        store = Store(url)
        store.migrate()
        try:
            store.create_checkpoint()
            assert store.take_lease("benchmark", 600) is not None
            with patch.object(folding, "Tally", Tally if counted else NoTally):
                began, position = time.process_time(), None
                for first in range(0, len(tape), size):
                    batch = tape[first : first + size]
                    with store.folding() as session:
                        folded = folding.fold_batch(batch, 1, session.jobs, session.gone)
                        assert session.commit("benchmark", (1, position), folded, 600)
                    position = batch[-1].offset
                return time.process_time() - began
        finally:
            store.close()


if __name__ == "__main__":
    sys.exit(main())
