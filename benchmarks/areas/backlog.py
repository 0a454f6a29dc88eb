"""A backlog: many queued jobs without a worker, then with one. What it does to memory and to the rate."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from benchmarks.report.section import Section, table
from benchmarks.rig.installation import Installation
from benchmarks.rig.plan import Plan
from benchmarks.rig.processes import usage
from benchmarks.rig.stage import Stage, log
from benchmarks.rig.systems import Running, ours


@dataclass(frozen=True)
class Outcome:
    """One size of a backlog. ``memory``: MiB of each process while the jobs wait."""

    jobs: int
    accepted: float
    drained: float
    memory: dict[str, float]
    size: float
    """KB of the database for each job that has ended."""


def measure(stage: Stage, plan: Plan) -> Section:
    """Build up and work off a small backlog and a large one, each on a new installation."""
    found: dict[str, list[Outcome]] = {}
    for system in ours(plan.databases):
        for jobs in (plan.few, plan.backlog):
            with system.run(stage) as running:
                found.setdefault(system.name, []).append(_outcome(running, jobs))
            last = found[system.name][-1]
            log(f"{system.name}: {jobs:,} accepted at {last.accepted:,.0f}/s, worked off at {last.drained:,.0f}/s")
    return Section("backlog", "\n\n".join(_text(plan, found)))


def _outcome(running: Running, jobs: int) -> Outcome:
    made = running.installation
    assert made is not None
    worker = next(part for part in made.parts if part.name == "worker")
    worker.stop()
    before = _size(made)
    answer = running.driver.do("queue", jobs=jobs)
    # The worker is measured when all is done: it has held a part of the backlog then.
    memory = {name: each.memory for name, each in running.usages().items() if name not in ("client", "worker")}
    fresh = made.start("worker")
    drained = running.driver.do("finish")
    memory["worker"] = usage(fresh.process.pid).memory
    size = (_size(made) - before) / jobs / 1024
    return Outcome(jobs, jobs / answer["submitted"], jobs / drained["done"], memory, size)


def _size(made: Installation) -> int:
    """Return the bytes of the database, with what SQLite has not moved from its journal yet."""
    url = make_url(made.environment["DATABASE_URL"])
    if url.get_backend_name() == "sqlite":
        return sum(path.stat().st_size for path in Path(str(url.database)).parent.glob("view.db*"))
    with psycopg.connect(made.environment["DATABASE_URL"]) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row is not None
        return int(row[0])


def _text(plan: Plan, found: dict[str, list[Outcome]]) -> Iterable[str]:
    yield f"{plan.few:,} and {plan.backlog:,} jobs queued without a worker, then worked off by one; one run."
    rows = []
    for name, outcomes in found.items():
        for each in outcomes:
            memory = ", ".join(f"{part} {mib:,.0f}" for part, mib in each.memory.items())
            rows.append(
                [
                    f"{name}, {each.jobs:,}",
                    f"{each.accepted:,.0f}/s",
                    f"{each.drained:,.0f}/s",
                    f"{each.size:.2f} KB",
                    memory,
                ]
            )
    yield table(["", "accepted", "worked off", "view a job", "memory in MiB"], rows)
