"""Takes a picture of every page of the dashboard, at two sizes, light and dark, in all situations.

    .venv/bin/python -m benchmarks.checks.dashboard.gallery FOLDER [--broker B] [--jobs 100000]
        [--situations empty,few,…]
        [--pages overview,jobs,…] [--looks wide-light,wide-dark,phone-light,phone-dark]

The situations follow one another in one installation: empty; a few jobs that really run; a day of many jobs, a thousand
of which failed at the same place; the projector frozen; no projector; no worker; no broker. FOLDER gets one file for
each page and situation, with the pictures side by side, as soon as they are taken. Needs Chromium, as the tests do.

Prints what was noticed: errors on the console, serious faults of accessibility, pages that are too wide or go on
loading, and the longest task of a page, in which the browser answers nothing. Exits 0 only if there is no fault, and no
task took longer than LONGEST_TASK.
"""

import argparse
import os
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aio_pika
import anyio
import httpx
from playwright.sync_api import Browser

from benchmarks.rig.installation import Installation, Part, installation, options, until
from benchmarks.rig.load.shop_tape import day
from benchmarks.rig.load.tapes import publish
from benchmarks.rig.servers.brokers import Broker
from tests.dashboard.browser import browser
from tests.dashboard.pictures.pages import LOOKS, Taken, addresses, sheet, take_all

LONGEST_TASK: Final = 1000.0
"""Milliseconds."""
LIMIT: Final = 1800.0
SITUATIONS: Final = ("empty", "few", "many", "frozen", "no-projector", "no-worker", "no-broker")
LARGE: Final = 1024 * 1024 - 400
"""Characters of a payload that just fits into a submission."""


class Gallery:
    """Takes the pictures of one situation after the other."""

    def __init__(self, made: Installation, broker: Broker, chromium: Browser, wanted: argparse.Namespace) -> None:
        self._made, self._broker, self._chromium = made, broker, chromium
        self._folder: Path = wanted.folder
        self._jobs: int = wanted.jobs
        self._pages: list[str] = wanted.pages
        self._looks: list[str] = wanted.looks
        self._known: dict[str, str] = {}
        self.faults: list[str] = []

    def run(self, wanted: list[str]) -> None:
        """Make each situation, and take the pictures of those that are ``wanted``."""
        steps: dict[str, Callable[[], None]] = {
            "empty": self._start,
            "few": self._few,
            "many": self._many,
            "frozen": self._freeze,
            "no-projector": self._stop_projector,
            "no-worker": self._stop_worker,
            "no-broker": self._stop_broker,
        }
        last = max((list(steps).index(name) for name in wanted), default=0)
        for name, step in list(steps.items())[: last + 1]:
            step()
            if name in wanted:
                self._take(name)
        if "no-broker" in wanted:
            self._broker.start()  # its namespace is removed

    def _take(self, situation: str) -> None:
        slowest = ("", 0.0)
        longest = ("", 0.0)

        def note(page: str, taken: dict[str, Taken]) -> None:
            nonlocal slowest, longest
            sheet(each.picture for each in taken.values()).save(self._folder / f"{situation}.{page}.png")
            for look, each in taken.items():
                self.faults += [f"{situation}, {page}, {look}: {fault}" for fault in each.faults]
                slowest = max(slowest, (page, each.seconds), key=lambda one: one[1])
                longest = max(longest, (page, each.longest_task), key=lambda one: one[1])

        pages = {name: to for name, to in addresses(self._known).items() if not self._pages or name in self._pages}
        take_all(self._chromium, self._made.url, pages, self._looks, note)
        if longest[1] > LONGEST_TASK:
            self.faults.append(f"{situation}, {longest[0]}: a task of {longest[1]:.0f} ms")
        print(
            f"{situation}: {len(pages)} pages; slowest {slowest[0]} {slowest[1]:.2f} s, "
            f"longest task {longest[0]} {longest[1]:.0f} ms",
            *(fault for fault in self.faults if fault.startswith(f"{situation},")),
            sep="\n",
            flush=True,
        )

    def _start(self) -> None:
        # A key of 32 bytes, and the address of a receiver that does not answer.
        self._made.environment |= {"JOBTAPE_SECRET_KEYS": "MDEy" * 10 + "MDE=", "JOBTAPE_WEBHOOK_ALLOW": "127.0.0.1/32"}
        for part in ("api", "worker", "projector"):
            self._made.start(part)
        self._made.wait_ready()

    def _part(self, name: str) -> Part:
        return next(part for part in self._made.parts if part.name == name)

    def _few(self) -> None:
        """Run about twenty jobs, some of which fail, wait or run on, and a rebuild without a switch."""
        with self._made.client() as client:
            known = self._known
            known["retried"] = _submit(client, "mail.send", {"to": "ada@example.org", "refusals": 2}, tenant="a")
            known["failed"] = _submit(client, "payment.charge", {"customer": 2**63 - 1, "amount": -5.0}, tenant="b")
            known["large"] = _submit(client, "text.count", {"text": "large " * (LARGE // 6)})
            known["arabic"] = _submit(client, "text.count", {"text": "مرحبا بالعالم"}, **{"العميل": "محمد"})
            for n in range(8):
                _submit(client, "mail.send", {"to": f"customer{n}@example.org"}, tenant="abc"[n % 3], campaign="autumn")
            for n in range(4):
                pause = 3600.0 if n == 0 else 0.1
                _submit(client, "stock.move", {"article": "bolts", "pieces": n, "pause": pause}, tenant="a")
            _submit(client, "report.build", {"year": 2026, "pause": 300.0}, tenant="a")
            late = {"type": "report.build", "payload": {"year": 2027}, "run_at": "2030-01-01T00:00:00Z"}
            client.post("/jobs", json=late).raise_for_status()
            schedule = {"type": "report.build", "payload": {"year": 2025}, "cron": "0 9 * * MON-FRI"}
            client.put("/schedules/morning-report", json=schedule | {"tz": "Europe/Berlin"}).raise_for_status()
            client.put(
                "/schedules/sweep", json={"type": "stock.sweep", "payload": {}, "every": 3600}
            ).raise_for_status()
            ended = ("retried", "failed", "large", "arabic")
            until(lambda: all(_state(client, known[each]) in ("succeeded", "failed") for each in ended), "they end")
            steps = {
                "report": {"type": "report.build", "payload": {"year": 2024, "pause": 0.01}},
                "mails": {"type": "mail.send", "payload": {"to": "board@example.org"}, "after": ["report", "approved"]},
            }
            known["flow"] = _submit(client, "jobtape.flow", {"nodes": steps, "signals": {"approved": {}}})
            known["shadow"] = _submit(client, "jobtape.shadow", {"type": ["mail.send"], "state": ["succeeded"]})
            hook = {"url": "http://127.0.0.1:1/hooks", "filter": {"events": ["failed"]}}
            client.post("/webhooks", json=hook).raise_for_status()
            until(lambda: _state(client, known["shadow"]) == "succeeded", "the shadow run ends")
            dry_run = {"type": "jobtape.rebuild", "payload": {"dry_run": True}}
            known["failure"] = client.get(f"/jobs/{known['failed']}").json()["failure"]
            self._damage(client)
            known["rebuild"] = client.post("/jobs", json=dry_run).json()["id"]
            until(lambda: _state(client, known["rebuild"]) == "succeeded", "the rebuild ends")
            known["cursor"] = str(client.get(f"/jobs/{known['retried']}/events").json()["items"][2]["cursor"])
            _apart(self._foreign_message)
            until(lambda: client.get("/dead").json()["items"], "the dead letter is stored")

    def _damage(self, client: httpx.Client) -> None:
        """Change two jobs in the view, so that the rebuild finds something."""
        jobs = client.get("/jobs", params={"type": "mail.send", "state": "succeeded", "limit": 2}).json()["items"]
        file = self._made.environment["DATABASE_URL"].removeprefix("sqlite:///")
        with closing(sqlite3.connect(file, timeout=30)) as database, database:
            for job in jobs:
                database.execute("UPDATE jobs SET state = 'failed', reason = 'error' WHERE id = ?", [job["id"]])

    async def _foreign_message(self) -> None:
        """Put a message on a work queue that is no job."""
        async with await aio_pika.connect(self._made.environment["RABBITMQ_URL"]) as connection:
            channel = await connection.channel()
            message = aio_pika.Message(b'{"hello": "world"}', content_type="application/json")
            await channel.default_exchange.publish(message, self._made.topology.work_queue("mail").name)

    def _many(self) -> None:
        """Write a day of jobs to the tape, and wait until they are folded."""
        _apart(publish, self._made.environment["RABBITMQ_URL"], self._made.topology, day(self._jobs, datetime.now(UTC)))
        with self._made.client() as client:
            since = (datetime.now(UTC) - timedelta(hours=25)).isoformat()

            def submitted() -> int:
                answer = client.get("/stats", params={"since": since})
                # While it is that far behind, the view may not answer in time.
                types = answer.json()["types"] if answer.status_code == 200 else []
                return sum(each["events"].get("submitted", 0) for each in types)

            until(lambda: submitted() >= self._jobs, "the day is folded", LIMIT)
            groups = client.get("/failures", params={"type": "payment.charge"}).json()["items"]
            self._known["failure"] = max(groups, key=lambda group: int(group["jobs"]))["id"]

    def _freeze(self) -> None:
        os.kill(self._part("projector").process.pid, signal.SIGSTOP)
        with self._made.client() as client:
            for n in range(20):
                _submit(client, "mail.send", {"to": f"late{n}@example.org"})
            until(lambda: (client.get("/health/ready").json()["lag"] or 0) > 20, "the view is behind")

    def _stop_projector(self) -> None:
        part = self._part("projector")
        os.kill(part.process.pid, signal.SIGCONT)
        part.kill()
        with self._made.client() as client:
            until(lambda: not client.get("/health/ready").json()["parts"]["projector"]["ready"], "that is noticed")

    def _stop_worker(self) -> None:
        self._made.parts.remove(self._part("projector"))
        self._made.start("projector")
        self._made.wait_ready()
        self._part("worker").kill()
        with self._made.client() as client:
            for n in range(20):
                _submit(client, "mail.send", {"to": f"waiting{n}@example.org"})

            def noticed() -> bool:
                workers = client.get("/health/ready").json()["workers"]
                return bool(workers["mail"]["warning"])

            until(noticed, "that is noticed")

    def _stop_broker(self) -> None:
        self._broker.kill()
        with self._made.client() as client:
            until(lambda: not client.get("/health/ready").json()["parts"]["broker"]["ready"], "that is noticed")


def _apart(function: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Run a coroutine in a thread: the one that has the browser cannot run an event loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(anyio.run, function, *arguments).result()


def _submit(client: httpx.Client, job_type: str, payload: dict[str, Any], **labels: str) -> str:
    answer = client.post("/jobs", json={"type": job_type, "payload": payload, "labels": labels})
    answer.raise_for_status()
    return str(answer.json()["id"])


def _state(client: httpx.Client, job_id: str) -> str:
    return str(client.get(f"/jobs/{job_id}").json()["state"])


def main() -> int:
    """Take the pictures, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--situations", type=lambda text: text.split(","), default=list(SITUATIONS))
    parser.add_argument("--pages", type=lambda text: text.split(","), default=[], help="all, if not given")
    parser.add_argument("--looks", type=lambda text: text.split(","), default=list(LOOKS))
    parser.set_defaults(broker="node")
    wanted: argparse.Namespace = parser.parse_args()
    wanted.folder.mkdir(parents=True, exist_ok=True)
    shop = installation(wanted, jobs="tests.dashboard.pictures.shop", queues=("default", "mail", "reports"))
    with shop as (broker, made), browser() as chromium:
        gallery = Gallery(made, broker, chromium, wanted)
        gallery.run(wanted.situations)
    print(f"{len(gallery.faults)} faults")
    return 1 if gallery.faults else 0


if __name__ == "__main__":
    sys.exit(main())
