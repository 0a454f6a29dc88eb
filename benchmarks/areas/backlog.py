"""A backlog: many queued jobs without a worker, then with one. What it does to memory and to the rate."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from sqlalchemy import make_url

from benchmarks.report.section import Section, table
from benchmarks.rig.installation import Installation, until
from benchmarks.rig.plan import Plan
from benchmarks.rig.processes import usage
from benchmarks.rig.stage import Stage, log
from benchmarks.rig.systems import Running, ours
from jobtape.schemas.events import Submitted
from jobtape.view.store import Store

QUEUED, DELAYED = "queued", "delayed"
SLOWEST_FOLD: Final = 500
"""Jobs a second."""
SPARE: Final = 5.0
"""Seconds between the last submission and the time at which delayed jobs are due, at least."""


@dataclass(frozen=True)
class Outcome:
    """A backlog of one kind and size. ``memory``: MiB of each process while the jobs wait; the worker's: after them."""

    kind: str
    jobs: int
    accepted: float
    drained: float
    memory: dict[str, float]
    size: float
    """KB of the database for each job that has ended."""


def measure(stage: Stage, plan: Plan) -> Section:
    """Build up and work off a small and a large backlog of each kind, each on a new installation."""
    found: dict[str, list[Outcome]] = defaultdict(list)
    for system in ours(plan.databases):
        for jobs in (plan.few, plan.backlog):
            for kind in (QUEUED, DELAYED):
                before = found[system.name][-1].accepted if kind == DELAYED else 0.0
                with system.run(stage) as running:
                    last = _queued(running, jobs) if kind == QUEUED else _delayed(running, jobs, 2 * jobs / before)
                found[system.name].append(last)
                log(
                    f"{system.name}: {jobs:,} {kind}, accepted at {last.accepted:,.0f}/s, "
                    f"worked off at {last.drained:,.0f}/s; MiB: {_shown(last)}"
                )
    return Section("backlog", "\n\n".join(_text(plan, found)))


def _queued(running: Running, jobs: int) -> Outcome:
    """Queue jobs while there is no worker, then start one."""
    made = running.installation
    assert made is not None
    next(part for part in made.parts if part.name == "worker").stop()
    before = _size(made)
    answer = running.driver.do("queue", jobs=jobs)
    _wait_folded(made, jobs)
    memory = _memory(running)
    worker = made.start("worker").process.pid
    drained = running.driver.do("finish")
    memory["worker"] = usage(worker).memory
    return Outcome(
        QUEUED, jobs, jobs / answer["submitted"], jobs / drained["done"], memory, (_size(made) - before) / jobs / 1024
    )


def _delayed(running: Running, jobs: int, seconds: float) -> Outcome:
    """Submit jobs that are all due ``seconds`` and a little later. The worker runs all the time."""
    made = running.installation
    assert made is not None
    before = _size(made)
    answer = running.driver.do("queue", jobs=jobs, delay=seconds + SPARE)
    _wait_folded(made, jobs)
    memory = _memory(running)
    drained = running.driver.do("finish")
    memory["worker"] = usage(running.processes["worker"]).memory
    return Outcome(
        DELAYED, jobs, jobs / answer["submitted"], jobs / drained["done"], memory, (_size(made) - before) / jobs / 1024
    )


def _wait_folded(made: Installation, jobs: int) -> None:
    """Wait until the view has the submissions of so many jobs."""

    def folded(store: Store) -> bool:
        return sum(n for (_, event), n in store.counts().items() if event == Submitted.name) >= jobs

    with closing(made.store()) as store:
        until(lambda: folded(store), "the view has the submissions", 60 + jobs / SLOWEST_FOLD)


def _memory(running: Running) -> dict[str, float]:
    return {name: each.memory for name, each in running.usages().items() if name not in ("client", "worker")}


def _size(made: Installation) -> int:
    """Return the bytes of the database, after SQLite has moved what is in its journal."""
    url = make_url(made.environment["DATABASE_URL"])
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(url.database))) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Path(str(url.database)).stat().st_size
    with psycopg.connect(made.environment["DATABASE_URL"]) as server:
        row = server.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row is not None
        return int(row[0])


def _shown(outcome: Outcome) -> str:
    return ", ".join(f"{part} {mib:,.0f}" for part, mib in outcome.memory.items())


def _text(plan: Plan, found: dict[str, list[Outcome]]) -> Iterable[str]:
    yield (
        f"{plan.few:,} and {plan.backlog:,} jobs that are queued without a worker, or due at one moment, then worked "
        "off by one worker:"
    )
    rows = []
    for name, outcomes in found.items():
        for each in outcomes:
            rows.append(
                [
                    f"{name}, {each.jobs:,} {each.kind}",
                    f"{each.accepted:,.0f}/s",
                    f"{each.drained:,.0f}/s",
                    f"{each.size:.2f} KB",
                    _shown(each),
                ]
            )
    yield table(["", "accepted", "worked off", "view a job", "memory in MiB"], rows)
