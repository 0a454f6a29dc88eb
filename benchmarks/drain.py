"""Measures how fast 10,000 ``add`` jobs are accepted, executed and readable, and the processor time of each process.

    .venv/bin/python -m benchmarks.drain [--broker B] [--database D] [--jobs 10000] [--workers 1]

Submits through ``POST /jobs/batch`` with the worker running, waits until all jobs have succeeded in the view, and
prints a table.
"""

import time

from rich.console import Console
from rich.table import Table

from benchmarks.rig.installation import installation, options

LIMIT = 300.0


def main() -> None:
    """Measure, and print the table."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    wanted = parser.parse_args()

    with installation(wanted) as (_, made):
        made.start("projector")
        made.start("api")
        for _ in range(wanted.workers):
            made.start("worker", "--concurrency", str(wanted.concurrency))
        made.wait_ready()
        before = {part.process.pid: part.cpu() for part in made.parts}
        started = time.monotonic()
        with made.client() as client:
            items = [{"type": "add", "payload": {"x": n, "y": n}} for n in range(wanted.jobs)]
            answer = client.post("/jobs/batch", json=items).raise_for_status().json()
            accepted = time.monotonic() - started
            assert answer["accepted"] == wanted.jobs, answer
            succeeded = 0.0
            while succeeded < wanted.jobs:
                if time.monotonic() - started > LIMIT:
                    raise TimeoutError(f"{succeeded:g} of {wanted.jobs} after {LIMIT:g} s")
                time.sleep(0.2)
                succeeded = _succeeded(client.get("/metrics").text)
            drained = time.monotonic() - started
        spent = {f"{part.name} {part.process.pid}": part.cpu() - before[part.process.pid] for part in made.parts}

    table = Table(title=f"{wanted.jobs} add jobs, {wanted.workers} worker(s), concurrency {wanted.concurrency}")
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_row("accepted (batch confirmed)", f"{accepted:.2f} s, {wanted.jobs / accepted:,.0f} jobs/s")
    table.add_row("all succeeded in the view", f"{drained:.2f} s, {wanted.jobs / drained:,.0f} jobs/s")
    for name, seconds in spent.items():
        table.add_row(f"CPU of {name}", f"{seconds:.2f} s, {seconds / wanted.jobs * 1e6:,.0f} µs for each job")
    Console().print(table)


def _succeeded(metrics: str) -> float:
    for line in metrics.splitlines():
        if line.startswith("jobtape_events_total{") and 'event="succeeded"' in line and 'job_type="add"' in line:
            return float(line.rsplit(" ", 1)[1])
    return 0.0


if __name__ == "__main__":
    main()
