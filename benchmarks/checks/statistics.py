"""Measures which part of the projector's processor time the statistics take: the sums by minute and the failure groups.

    .venv/bin/python -m benchmarks.checks.statistics [--jobs 3000] [--rounds 3] [--batches 500,50,10]

Folds and commits the same tape of several job types into two SQLite views, with and without statistics, batch by batch
in turn. What is measured is the processor time of the process. The reader of the stream, the notices and the relay are
left out, so the share of the whole projector is smaller than the figure.

A projector with little to do commits small batches, with more rows of sums for each event. Exits 0 only if the share is
below LARGEST_SHARE for the first size, that of a projector that is busy.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", default="500,50,10")
    wanted = parser.parse_args()
    garbage.collect_rarely()
    events = day(wanted.jobs, datetime.now(UTC), seconds=wanted.jobs / A_SECOND, refused=wanted.jobs // 100)
    tape = [TapeMessage(n, encode(event), "event") for n, event in enumerate(events)]
    shares = [_share(tape, int(size), wanted.rounds) for size in wanted.batches.split(",")]
    return 0 if shares[0] < LARGEST_SHARE else 1


def _share(tape: list[TapeMessage], size: int, rounds: int) -> float:
    """Return the share of the statistics in batches of this size."""
    seconds = {True: 0.0, False: 0.0}
    for _ in range(rounds):
        with _view() as counting, _view() as other:
            for number, first in enumerate(range(0, len(tape), size)):
                batch = tape[first : first + size]
                # Each batch twice, one after the other, so that what else the machine does takes both alike.
                for counted in (True, False) if number % 2 else (False, True):
                    began = time.process_time()
                    _commit(counting if counted else other, batch, first - 1 if first else None, counted=counted)
                    seconds[counted] += time.process_time() - began
    share = 1 - seconds[False] / seconds[True]
    per_event = 1e6 / len(tape) / rounds
    print(
        f"batches of {size}: {seconds[True] * per_event:.1f} µs an event with, {seconds[False] * per_event:.1f} "
        f"without: {share:.1%}",
        flush=True,
    )
    return share


@contextmanager
def _view() -> Iterator[Store]:
    """Make a view in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="jobtape-statistics-") as folder:
        store = Store(f"sqlite:///{Path(folder) / 'view.db'}")
        store.migrate()
        try:
            store.create_checkpoint()
            assert store.take_lease("benchmark", 600) is not None
            yield store
        finally:
            store.close()


def _commit(store: Store, batch: list[TapeMessage], position: int | None, *, counted: bool) -> None:
    with patch.object(folding, "Tally", Tally if counted else NoTally), store.folding() as session:
        folded = folding.fold_batch(batch, 1, session.jobs, session.gone)
        assert session.commit("benchmark", (1, position), folded, 600)


if __name__ == "__main__":
    sys.exit(main())
