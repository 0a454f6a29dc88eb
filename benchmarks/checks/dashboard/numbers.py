"""Compares the numbers on the dashboard's pages with an independent count of the events on the tape.

    .venv/bin/python -m benchmarks.checks.dashboard.numbers [--broker B] [--database D] [--jobs 10000] [--seed 1]

Half of the jobs fail now and then, which their retry policy repeats, and some fail for good. While they come and run,
workers and projectors are killed with SIGKILL. Then a browser opens the overview, the queues and the failures, before
and after a rebuild of the view. Needs Chromium, as the tests do.

Exits 0 only if every number was right.
"""

import argparse
import random
import subprocess
import sys
import threading
from collections import Counter

import anyio
from playwright.sync_api import Page, expect

from benchmarks.rig.installation import Installation, installation, options
from benchmarks.rig.load import paced
from jobtape.schemas.job import FINAL, JobState
from tests.counted import Counted
from tests.dashboard.browser import Tab, browser
from tests.ledger import Ledger

LIMIT = 1200.0
COLUMNS = ("submitted", "succeeded", "failed", "retrying")
WAITING = frozenset({"queued", "retrying", "scheduled", "held"})
Numbers = dict[str, int]


def main() -> int:
    """Run the check, and return the exit status."""
    expect.set_options(timeout=120_000)  # how fast the pages are is measured elsewhere
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    with installation(wanted) as (_, made):
        return run(made, wanted)


def run(made: Installation, wanted: argparse.Namespace) -> int:
    """Run the jobs with kills, and compare the pages before and after a rebuild."""
    made.environment["BENCH_EXECUTIONS"] = str(made.folder / "executions")
    for part in ("api", "worker", "worker", "projector", "projector"):
        made.start(part)
    made.wait_ready()
    killed = _work(made, wanted.jobs, random.Random(wanted.seed))
    wrong = _compare(made, "after kills")
    command = [sys.executable, "-m", "jobtape", "rebuild", "--url", made.url]
    subprocess.run(command, env=made.environment, check=True)
    wrong += _compare(made, "after a rebuild")
    print(f"killed {dict(killed)}")
    print("\n".join(wrong) or "every number is right")
    return 1 if wrong or not killed else 0


def _work(made: Installation, jobs: int, chance: random.Random) -> "Counter[str]":
    """Submit the jobs, kill parts until all have ended, and return what was killed."""
    kinds = [
        {"type": "add", "payload": {"x": 1, "y": 2}},
        {"type": "flaky", "payload": {"fails": 0.5, "seconds": 0}},
        {"type": "add", "payload": {"x": 3, "y": 4}},
        {"type": "second-time", "payload": {}},
    ]
    ledger, killed, ended = Ledger(), Counter[str](), threading.Event()

    store = made.store()

    def kill() -> None:
        known = -1
        while not ended.wait(chance.uniform(0.5, 2.0)):
            # On a busy machine the parts need longer to start than this pause, and then nothing would ever end.
            final = sum(count.n for count in store.statistics.jobs() if count.state in FINAL)
            if final == known:
                continue
            known = final
            part = chance.choice([part for part in made.parts if part.name in ("worker", "projector")])
            made.replace(part)
            killed[part.name] += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with made.client() as client:
            paced.submit(client, [kinds[n % len(kinds)] for n in range(jobs)], ledger, rate=1000)
        paced.wait_final(store, ledger, LIMIT)
    finally:
        ended.set()
        killer.join()
        store.close()
    return killed


def _compare(made: Installation, when: str) -> list[str]:
    """Return which numbers on the pages differ from the tape."""
    right = _count(made)
    with browser() as chromium:
        tab = Tab(chromium, made.url)
        shown = _overview(tab.go("?range=day")) | _queues(tab.go("queues")) | _failures(tab.go("failures"))
        tab.context.close()
    wrong = [
        f"{when}: {name} is {shown.get(name)} on the page, {right.get(name)} on the tape"
        for name in sorted(shown.keys() | right.keys())
        if shown.get(name, 0) != right.get(name, 0)
    ]
    print(f"{when}: {len(shown)} numbers, {sum(shown.values()):,} together, {len(wrong)} wrong", flush=True)
    return wrong + [f"{when}: {fault}" for fault in tab.faults]


def _count(made: Installation) -> Numbers:
    """Count on the tape what the pages show."""
    checker = made.checker()
    anyio.run(checker.read)
    counted = Counted()
    for event, cursor in checker.events():
        counted.read(event, cursor)
    found = Counter[str]()
    for fact in counted.facts:
        if fact.event.name in COLUMNS:
            found[f"{fact.type} {fact.event.name}"] += 1
        if fact.event.name in ("submitted", "succeeded", "failed"):
            found[f"tile {fact.event.name}"] += 1
        if fact.group is not None:
            found[f"{fact.type} failures {fact.event.name}"] += 1
    for (_, queue, state), n in counted.states().items():
        found[f"queue {queue} {state}"] += n
        found["tile running"] += n if state == JobState.RUNNING else 0
        found["tile waiting"] += n if state in WAITING else 0
    return dict(found)


def _overview(page: Page) -> Numbers:
    expect(page.get_by_text("in the last 24 hours").first).to_be_visible()
    found = {}
    for name in ("submitted", "succeeded", "failed", "waiting", "running"):
        found[f"tile {name}"] = _number(page.locator(f".tile [data-name={name}]").inner_text())
    for row in page.locator("table.rows tbody tr", has=page.locator("[data-name=submitted]")).all():
        job_type = row.locator(".name").inner_text()
        for name in COLUMNS:
            found[f"{job_type} {name}"] = _number(row.locator(f"[data-name={name}]").inner_text())
    return found


def _queues(page: Page) -> Numbers:
    expect(page.locator(".queues a.state").first).to_be_visible()
    found = {}
    for row in page.locator(".queues tbody tr").all():
        queue = row.locator(".name").inner_text()
        for text in row.locator("a.state").all_inner_texts():
            n, state = text.split()
            found[f"queue {queue} {state}"] = _number(n)
    return found


def _failures(page: Page) -> Numbers:
    expect(page.locator(".group").first).to_be_visible()
    found = Counter[str]()
    for group in page.locator(".group").all():
        job_type = (group.get_attribute("aria-label") or "").partition(":")[0]
        attempts = _number(group.locator("[data-name=failed]").inner_text().partition(" ")[0])
        retrying = sum(_number(text) for text in group.locator("[data-name=retrying]").all_inner_texts())
        found[f"{job_type} failures failed"] += attempts - retrying
        found[f"{job_type} failures retrying"] += retrying
    return dict(found)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


if __name__ == "__main__":
    sys.exit(main())
