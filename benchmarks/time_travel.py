"""Measures reads of a past state: one job, a page of jobs, a page that finds nothing, the cursor of a time.

    .venv/bin/python -m benchmarks.time_travel [--jobs 100000] [--database URL]

Fills a view (SQLite in a temporary folder, or the given empty database) with jobs of three events, then reads at random
points. Reported: milliseconds, median and 99th percentile.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from uuid import UUID

from jobtape.broker.stream_reader import TapeMessage
from jobtape.consumer.folding import fold_batch
from jobtape.schemas import events, ids
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.job import JobState, Order
from jobtape.view.store import JobQuery, Store
from tests.schemas import events_of_a_job as facts

BATCH = 500
READS = 300


def main() -> None:
    """Fill the view, read, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--database")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(wanted.database or f"sqlite:///{folder}/view.db", timeout=60)
        store.migrate()
        assert store.create_checkpoint(), "the database is not empty"
        job_ids = fill(store, wanted.jobs)
        print(f"{store.dialect}: {wanted.jobs} jobs, {3 * wanted.jobs} events")
        read(store, job_ids)
        store.close()


def job_ids_of(count: int) -> list[str]:
    """Return ids of ``count`` jobs, ten of which are submitted each second."""
    return [str(UUID(int=UUID(ids.first_id_at(facts.EPOCH + timedelta(seconds=n / 10))).int + n)) for n in range(count)]


def tape(job_ids: list[str]) -> Iterator[events.JobEvent]:
    """Yield the events of jobs that start after one second and succeed after two."""
    count = len(job_ids)
    # In each tenth of a second one job is submitted, one starts and one ends.
    for tenth in range(count + 20):
        for kind in (0, 1, 2):
            if 0 <= (n := tenth - 10 * kind) < count:
                yield event(job_ids[n], n, kind)


def fill(store: Store, count: int) -> list[str]:
    """Fold and commit the tape of ``count`` jobs, and return their ids."""
    assert store.take_lease("benchmark", 600)
    job_ids = job_ids_of(count)
    position: int | None = None
    rest = enumerate(tape(job_ids))
    while batch := [TapeMessage(n, events.encode(each), "event") for n, each in islice(rest, BATCH)]:
        assert store.commit("benchmark", (1, position), fold_batch(batch, 1, store.jobs), 600)
        position = batch[-1].offset
    return job_ids


def event(job_id: str, n: int, kind: int) -> events.JobEvent:
    """Return the job's ``submitted``, ``started`` or ``succeeded`` event."""
    second = n // 10 + kind
    if kind == 0:
        order = Order(type="add", payload={"x": n}, queue="main", labels={"tenant": str(n % 100)}, timeout=60)
        return facts.submitted(second, job_id, order)
    execution = facts.Execution("e", job=job_id)
    return execution.started(second) if kind == 1 else execution.succeeded(second)


def read(store: Store, job_ids: list[str]) -> None:
    """Measure each kind of read at random points."""
    chance = random.Random(1)
    last = 3 * len(job_ids) - 1

    def then() -> int:
        return cursor_of(1, chance.randrange(last))

    def page(query: JobQuery, cursor: Callable[[], int] = then) -> Callable[[], object]:
        return lambda: store.past.page(query, cursor())

    near = JobQuery(before=job_ids[len(job_ids) // 2])
    measure("one job", lambda: store.past.job(chance.choice(job_ids), then()))
    measure("a page of 100 as of now", page(JobQuery(), lambda: cursor_of(1, last)))
    measure("a page of one label as of now", page(JobQuery(labels=[("tenant", "7")]), lambda: cursor_of(1, last)))
    measure("a page that finds nothing", page(JobQuery(states=[JobState.CANCELLED]), lambda: cursor_of(1, last)))
    measure("a page before all its jobs", page(JobQuery(), lambda: 0))
    measure("a page of 100 in the middle", page(near, lambda: cursor_of(1, last // 2 + 100)))
    measure(
        "the cursor of a time",
        lambda: store.past.cursor_at(facts.EPOCH + timedelta(seconds=chance.random() * len(job_ids) / 10)),
    )
    measure("the current list, for comparison", lambda: store.list_jobs(JobQuery()))


def measure(what: str, call: Callable[[], object]) -> None:
    """Call ``call`` READS times, and print median and 99th percentile in milliseconds."""
    took = []
    for _ in range(READS):
        started = time.perf_counter()
        call()
        took.append((time.perf_counter() - started) * 1000)
    print(f"{what:32} {statistics.median(took):8.2f} {statistics.quantiles(took, n=100)[98]:8.2f}")


if __name__ == "__main__":
    main()
