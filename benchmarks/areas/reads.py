"""Reads of a view with few and with many jobs: of now, and of a past state."""

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from benchmarks.report.section import Section, table
from benchmarks.rig.installation import percentile
from benchmarks.rig.load import tapes
from benchmarks.rig.plan import Plan
from benchmarks.rig.stage import Stage, log
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.job import JobState
from jobtape.view.store import JobQuery, Store
from tests.schemas import events_of_a_job as facts

DATABASES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

Reads = dict[str, Callable[[], object]]


def measure(stage: Stage, plan: Plan) -> Section:
    """Fill views, and read them in turn at random points. The order of the kinds changes in each round."""
    took: dict[tuple[str, str, int], list[float]] = {}
    for database in DATABASES:
        with _filled(stage, database, plan.few) as few, _filled(stage, database, plan.many) as many:
            kinds = [
                (what, size, call)
                for size, reads in ((plan.few, few), (plan.many, many))
                for what, call in reads.items()
            ]
            for _ in range(plan.long_rounds):
                random.shuffle(kinds)
                for what, size, call in kinds:
                    took.setdefault((what, database, size), []).extend(_time(call, plan.reads))
    return Section("reads", "\n\n".join(_text(plan, took)))


def _text(plan: Plan, took: dict[tuple[str, str, int], list[float]]) -> Iterable[str]:
    yield (
        f"Of a view with {plan.few:,} and with {plan.many:,} jobs, median and p99 in ms of "
        f"{plan.reads * plan.long_rounds} reads of each kind:"
    )
    head = [""] + [f"{name}, {size:,}" for name in DATABASES.values() for size in (plan.few, plan.many)]
    kinds = list(dict.fromkeys(what for what, _, _ in sorted(took, key=lambda each: ORDER.index(each[0]))))
    rows = []
    for what in kinds:
        cells = [took[what, database, size] for database in DATABASES for size in (plan.few, plan.many)]
        rows.append([what, *(f"{statistics.median(cell):.2f}, {percentile(cell, 0.99):.1f}" for cell in cells)])
    yield table(head, rows)


@contextmanager
def _filled(stage: Stage, database: str, jobs: int) -> Iterator[Reads]:
    with tempfile.TemporaryDirectory(dir=stage.folder, prefix="reads-") as folder:
        store = Store(stage.database(database, Path(folder)).url, timeout=60)
        with closing(store):
            store.migrate()
            assert store.create_checkpoint(), "the database is not empty"
            started = time.monotonic()
            job_ids = tapes.fill(store, jobs)
            log(f"{database}: {jobs:,} jobs written in {time.monotonic() - started:.0f} s")
            yield _reads(store, job_ids)


ORDER: Final = [
    "a job",
    "a page of 100 jobs",
    "a page of one label",
    "a page of one state, which finds nothing",
    "a page of one type and one state, which finds nothing",
    "a job, as of a past moment",
    "a page of 100 jobs, as of now",
    "a page of 100 in the middle, as of a past moment",
    "the cursor of a time",
]


def _reads(store: Store, job_ids: list[str]) -> Reads:
    chance = random.Random(1)
    last = 3 * len(job_ids) - 1

    def now() -> int:
        return cursor_of(1, last)

    def past() -> int:
        return cursor_of(1, chance.randrange(last))

    middle = JobQuery(before=job_ids[len(job_ids) // 2])
    seconds = len(job_ids) / tapes.A_SECOND
    calls: list[Callable[[], object]] = [
        lambda: store.jobs([chance.choice(job_ids)]),
        lambda: store.list_jobs(JobQuery(before=chance.choice(job_ids))),
        lambda: store.list_jobs(JobQuery(labels=[("tenant", str(chance.randrange(100)))])),
        lambda: store.list_jobs(JobQuery(states=[JobState.CANCELLED])),
        lambda: store.list_jobs(JobQuery(types=["add"], states=[JobState.CANCELLED])),
        lambda: store.past.job(chance.choice(job_ids), past()),
        lambda: store.past.page(JobQuery(), now()),
        lambda: store.past.page(middle, cursor_of(1, last // 2 + 100)),
        lambda: store.past.cursor_at(facts.EPOCH + timedelta(seconds=chance.random() * seconds)),
    ]
    return dict(zip(ORDER, calls, strict=True))


def _time(call: Callable[[], object], times: int) -> list[float]:
    """Call ``call`` several times, and return the milliseconds of each."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        took.append((time.perf_counter() - started) * 1000)
    return took
