"""Measures which part of the projector's processor time the sums by minute take, and all statistics with them.

    .venv/bin/python -m benchmarks.checks.dashboard.statistics [--jobs 3000] [--rounds 3] [--batches 500,50,10]

Folds and commits the same tape of several job types into three SQLite views, batch by batch in turn: with all
statistics, without the sums by minute, and also without the counts of jobs by state and the groups of failures. What is
measured is the processor time of the process. The reader of the stream, the notices and the relay are left out, so the
share of the whole projector is smaller than the figure.

A projector with little to do commits small batches, with more rows of sums for each event. Exits 0 only if the share of
the sums by minute is below LARGEST_SHARE for each size.
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

from benchmarks.rig.load.shop_tape import day
from jobtape.broker.stream_reader import TapeMessage
from jobtape.consumer import folding
from jobtape.process import garbage
from jobtape.schemas.events import Failed, JobEvent, Retrying, encode
from jobtape.schemas.execution.failure_group import group_of
from jobtape.schemas.job import Job
from jobtape.view.store import Store
from jobtape.view.tallies import FailureSpan, Tally

LARGEST_SHARE: Final = 0.05
A_SECOND: Final = 100
"""Jobs that are submitted in each second of the tape."""


class NoMinutes(Tally):
    """Counts jobs by state and keeps the groups of failures, without sums by minute."""

    def add(self, before: Job | None, event: JobEvent, after: Job) -> None:
        """Take an event."""
        if isinstance(event, Failed | Retrying):
            group = group_of(event.data.job_type, event.data.reason, event.data.error)
            self._extend(FailureSpan(group, event.time, event.time, after.cursor))


class NoStatistics(NoMinutes):
    """Counts nothing."""

    def add(self, before: Job | None, event: JobEvent, after: Job) -> None:
        """Take an event."""

    def move(self, before: Job | None, after: Job | None) -> None:
        """Take a job."""


VARIANTS: Final = (Tally, NoMinutes, NoStatistics)


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
    return 0 if max(shares) < LARGEST_SHARE else 1


def _share(tape: list[TapeMessage], size: int, rounds: int) -> float:
    """Return the share of the sums by minute in batches of this size."""
    seconds = dict.fromkeys(VARIANTS, 0.0)
    for _ in range(rounds):
        with _view() as first, _view() as second, _view() as third:
            stores = dict(zip(VARIANTS, (first, second, third), strict=True))
            for number, begin in enumerate(range(0, len(tape), size)):
                batch = tape[begin : begin + size]
                # Each batch three times, one after the other, so that what else the machine does takes all alike.
                for variant in (*VARIANTS[number % 3 :], *VARIANTS[: number % 3]):
                    began = time.process_time()
                    _commit(stores[variant], batch, begin - 1 if begin else None, variant)
                    seconds[variant] += time.process_time() - began
    per_event = 1e6 / len(tape) / rounds
    everything, no_minutes, nothing = (seconds[variant] * per_event for variant in VARIANTS)
    share = 1 - no_minutes / everything
    print(
        f"batches of {size}: {everything:.1f} µs an event with all statistics, {no_minutes:.1f} without sums by "
        f"minute, {nothing:.1f} without any: minutes {share:.1%}, all {1 - nothing / everything:.1%}",
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


def _commit(store: Store, batch: list[TapeMessage], position: int | None, variant: type[Tally]) -> None:
    with patch.object(folding, "Tally", variant), store.folding() as session:
        folded = folding.fold_batch(batch, 1, session.jobs, session.gone)
        assert session.commit("benchmark", (1, position), folded, 600)


if __name__ == "__main__":
    sys.exit(main())
