"""Measures how much processor time of the API open dashboards take, while jobs run.

    .venv/bin/python -m benchmarks.checks.dashboard.open_dashboards [--broker B] [--tabs 50] [--rate 100] [--seconds 40]

First a real tab shows the overview while jobs come, and its requests are noted. Then so many clients send the same
requests at the same times, each with an offset of its own, in one of two rounds; in the other there is no client. The
rounds alternate. One browser with so many tabs would take more processor time than everything else together.

Exits 0 only if the clients take less than LARGEST_SHARE of a core more.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import Request

from benchmarks.rig.installation import Installation, Part, installation, options
from tests.dashboard.browser import Tab, browser

LARGEST_SHARE: Final = 0.1
ROUNDS: Final = 4
ANSWERS: Final = Counter[int]()
"""How many answers had each status."""


@dataclass(frozen=True)
class Sent:
    """A request of a tab, ``at`` seconds after it was opened. ``stream``: it lasted ``seconds``."""

    at: float
    address: str
    stream: bool
    seconds: float = 0.0


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--tabs", type=int, default=50)
    parser.add_argument("--rate", type=float, default=100, help="jobs a second")
    parser.add_argument("--seconds", type=float, default=40, help="of each round")
    wanted = parser.parse_args()
    with installation(wanted) as (_, made):
        return run(made, wanted)


def run(made: Installation, wanted: argparse.Namespace) -> int:
    """Measure, and compare the rounds."""
    made.start("projector")
    made.start("worker")
    api = made.start("api")
    made.wait_ready()
    ended = threading.Event()
    submitter = threading.Thread(target=_submit, args=(made, wanted.rate, ended))
    submitter.start()
    try:
        sent = _record(made, wanted.seconds)
        costs: dict[bool, list[float]] = {True: [], False: []}
        for number in range(ROUNDS):
            tabs = wanted.tabs if number % 4 in (1, 2) else 0
            costs[tabs > 0].append(_measure(made, api, sent, tabs, wanted.seconds))
            print(f"{tabs} tabs: {costs[tabs > 0][-1]:.1%} of a core", flush=True)
    finally:
        ended.set()
        submitter.join()
    more = sum(costs[True]) / len(costs[True]) - sum(costs[False]) / len(costs[False])
    print(f"{len(sent)} requests of a tab in {wanted.seconds:g} s; answers by status: {dict(ANSWERS)}")
    print(f"{wanted.tabs} tabs take {more:.1%} of a core more")
    return 0 if more < LARGEST_SHARE else 1


def _submit(made: Installation, rate: float, ended: threading.Event) -> None:
    """Submit jobs in batches, ten times a second."""
    size = max(1, round(rate / 10))
    with made.client() as client:
        due = time.monotonic()
        while not ended.wait(max(0.0, due - time.monotonic())):
            client.post("/jobs/batch", json=[{"type": "add", "payload": {"x": n, "y": 1}} for n in range(size)])
            due = max(due + 0.1, time.monotonic() - 1)


def _record(made: Installation, seconds: float) -> list[Sent]:
    """Return the requests to the API of a tab that is open for so long."""
    found: dict[Request, Sent] = {}
    with browser() as chromium:
        tab = Tab(chromium, made.url)
        began = time.monotonic()

        def note(request: Request) -> None:
            parts = urlsplit(request.url)
            if not parts.path.startswith("/dashboard/"):
                stream = "event-stream" in request.headers.get("accept", "")
                found[request] = Sent(time.monotonic() - began, f"{parts.path}?{parts.query}", stream)

        def end(request: Request) -> None:
            if (one := found.get(request)) is not None and one.stream:
                found[request] = Sent(one.at, one.address, True, time.monotonic() - began - one.at)

        tab.page.on("request", note)
        tab.page.on("requestfinished", end)
        tab.page.on("requestfailed", end)
        tab.go("")
        tab.page.wait_for_timeout(seconds * 1000)
        tab.context.close()
    return [
        one if not one.stream or one.seconds else Sent(one.at, one.address, True, seconds) for one in found.values()
    ]


def _measure(made: Installation, api: Part, sent: list[Sent], tabs: int, seconds: float) -> float:
    """Return the processor time of the API in each second."""
    began, cpu = time.monotonic(), api.cpu()
    asyncio.run(_open(made.url, sent, tabs, seconds))
    return (api.cpu() - cpu) / (time.monotonic() - began)


async def _open(url: str, sent: list[Sent], tabs: int, seconds: float) -> None:
    """Send the requests of so many tabs for so long."""
    # A connection that the API is about to close is not used again, as a browser would try once more.
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, trust_env=False) as client:
        waits = [asyncio.sleep(seconds)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 5):
                await asyncio.gather(*waits, *(_tab(client, sent, seconds) for _ in range(tabs)))


async def _tab(client: httpx.AsyncClient, sent: list[Sent], seconds: float) -> None:
    """Send the requests of one tab, which has been open for some time. The first two seconds are left out."""
    offset = random.uniform(0, seconds)
    later = [one for one in sent if one.at > 2 or one.stream]
    await asyncio.gather(*(_send(client, one, (one.at + offset) % seconds, seconds) for one in later))


async def _send(client: httpx.AsyncClient, one: Sent, after: float, seconds: float) -> None:
    await asyncio.sleep(after)
    if not one.stream:
        ANSWERS[(await client.get(one.address)).status_code] += 1
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(min(one.seconds, seconds - after)):
            async with client.stream("GET", one.address, headers={"accept": "text/event-stream"}) as answer:
                async for _ in answer.aiter_raw():
                    pass


if __name__ == "__main__":
    sys.exit(main())
