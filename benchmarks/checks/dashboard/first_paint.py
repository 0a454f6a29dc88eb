"""Measures how long a page of the dashboard takes until it shows what it is for, in a browser without a cache.

    .venv/bin/python -m benchmarks.checks.dashboard.first_paint [--broker B] [--database D] [--jobs 100000] [--rounds 5]

A day of jobs is folded first. Then the overview, the list of jobs and one job are opened in turn, each time in a new
context. The time is from the start of the navigation to the first frame with the page's data. Needs Chromium, as the
tests do.

Exits 0 only if the median of each page is below LONGEST and what the browser loads for the frame and a page, as it was
sent, is below LARGEST.
"""

import statistics
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio
import httpx
from playwright.sync_api import Browser

from benchmarks.rig.installation import Installation, installation, options, until
from benchmarks.rig.load.shop_tape import day
from benchmarks.rig.load.tapes import publish
from tests.dashboard.browser import Tab, browser

LONGEST: Final = 1.0
"""Seconds."""
LARGEST: Final = 250_000
"""Bytes."""
LIMIT: Final = 1800.0
FRAME: Final = """
const look = () => {
  if (document.querySelector(%r) === null) requestAnimationFrame(look);
  else requestAnimationFrame(() => { document.documentElement.dataset.useful = performance.now(); });
};
requestAnimationFrame(look);
"""
SENT: Final = """
[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .filter(({ name }) => name.includes("/dashboard/") || name === location.href.split("#")[0])
  .reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0)
"""


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    shop = installation(wanted, jobs="tests.dashboard.pictures.shop", queues=("default", "mail", "reports"))
    with shop as (_, made):
        job_id = _fill(made, wanted.jobs)
        pages = {
            "overview": ("?range=day", ".tile .count"),
            "jobs": ("jobs", "table.jobs tbody tr"),
            "one job": (f"jobs/{job_id}", ".events li"),
        }
        with browser() as chromium:
            return _measure(chromium, made.url, pages, wanted.rounds)


def _fill(made: Installation, jobs: int) -> str:
    """Fold a day of jobs, and return the id of a failed one."""
    for part in ("api", "worker", "projector"):
        made.start(part)
    made.wait_ready()
    with ThreadPoolExecutor(1) as thread:
        tape = day(jobs, datetime.now(UTC))
        thread.submit(anyio.run, publish, made.environment["RABBITMQ_URL"], made.topology, tape).result()
    with made.client() as client:
        until(lambda: _submitted(client) >= jobs, "the day is folded", LIMIT)
        return str(client.get("/jobs", params={"state": "failed", "limit": 1}).json()["items"][0]["id"])


def _submitted(client: httpx.Client) -> int:
    """Return how many jobs the view has counted in a day; 0 while it is too far behind to answer."""
    answer = client.get("/stats", params={"since": (datetime.now(UTC) - timedelta(hours=25)).isoformat()})
    types = answer.json()["types"] if answer.status_code == 200 else []
    return sum(each["events"].get("submitted", 0) for each in types)


def _measure(chromium: Browser, url: str, pages: Mapping[str, tuple[str, str]], rounds: int) -> int:
    seconds: dict[str, list[float]] = {name: [] for name in pages}
    sent = 0
    for _ in range(rounds):
        for name, (address, selector) in pages.items():
            tab = Tab(chromium, url)
            tab.context.add_init_script(FRAME % selector)
            page = tab.go(address)
            useful = page.locator("html[data-useful]").get_attribute("data-useful")
            seconds[name].append(float(useful or "nan") / 1000)
            sent = max(sent, page.evaluate(SENT))
            tab.context.close()
            if tab.faults:
                print(f"{name}: {tab.faults}")
                return 1
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, each in seconds.items():
        print(f"{name}: median {medians[name]:.2f} s, {min(each):.2f} to {max(each):.2f} s")
    print(f"modules, styles and icons of a page: {sent / 1000:.0f} kB")
    return 0 if max(medians.values()) < LONGEST and sent < LARGEST else 1


if __name__ == "__main__":
    sys.exit(main())
