"""Measures Jobtape beside other libraries, on servers of its own, and writes ``docs/benchmarks.md``. See ``--help``."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from benchmarks.areas import backlog, delays, folding, gates, http, reads, throughput, waits
from benchmarks.report import page
from benchmarks.report.section import Section
from benchmarks.rig.plan import QUICK, Plan
from benchmarks.rig.stage import Stage, log, stage
from tools.clone import ROOT

AREAS: Final[dict[str, Callable[[Stage, Plan], Section]]] = {
    "throughput": throughput.measure,
    "waits": waits.measure,
    "http": http.measure,
    "delays": delays.measure,
    "folding": folding.measure,
    "reads": reads.measure,
    "backlog": backlog.measure,
    "gates": gates.measure,
}
RESULTS: Final = ROOT / "build" / "bench"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="make bench", description="Measure Jobtape beside other libraries, and write docs/benchmarks.md."
    )
    parser.add_argument("--quick", action="store_true", help="a small run of four minutes that leaves the page alone")
    parser.add_argument("--only", action="append", choices=AREAS, help="measure this area only (may be repeated)")
    parser.add_argument("--rounds", type=int, help="how many rounds, of which the median counts")
    parser.add_argument(
        "--large", action="store_true", help="reads and backlog with 1,000,000 jobs (more than an hour)"
    )
    parser.add_argument(
        "--broker",
        choices=("node", "container"),
        default="node",
        help="the RabbitMQ of this machine, or 4.0 under Docker, which leaves the page alone",
    )
    parser.add_argument("--dry", action="store_true", help="print the tables, and leave the page alone")
    return parser.parse_args()


def plan_of(wanted: argparse.Namespace) -> Plan:
    """Return how much to measure."""
    plan = QUICK if wanted.quick else Plan()
    if wanted.large:
        plan = replace(plan, many=1_000_000, backlog=1_000_000)
    return plan if wanted.rounds is None else replace(plan, rounds=wanted.rounds, long_rounds=wanted.rounds)


def conditions(made: Stage, took: float) -> str:
    """Return a line that says when and on what a section was measured. ``took``: its seconds."""
    parts = [f"RabbitMQ {made.node.version}", f"Python {platform.python_version()}", f"{os.cpu_count()} cores"]
    return f"*{', '.join(parts)}, {datetime.now(UTC).date()}, {took / 60:.0f} min.*"


def main() -> int:
    """Measure, write the page, and print its new parts."""
    wanted = parse()
    plan = plan_of(wanted)
    RESULTS.mkdir(parents=True, exist_ok=True)
    sections = []
    with stage(wanted.broker) as made:
        log(f"RabbitMQ {made.node.version}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for name in wanted.only or AREAS:
            started = time.monotonic()
            section = AREAS[name](made, plan)
            took = time.monotonic() - started
            section = replace(section, text=f"{section.text}\n\n{conditions(made, took)}")
            log(f"{name}: {took:.0f} s, load {os.getloadavg()[0]:.1f}")
            section.save(RESULTS)
            sections.append(section)
            if not wanted.quick and not wanted.dry and wanted.broker == "node":
                page.write(section, RESULTS, python=made.python)
    print(page.show(sections))
    return 0


if __name__ == "__main__":
    sys.exit(main())
