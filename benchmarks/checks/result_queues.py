"""Measures result queues: clients in other languages get every outcome, and broken subscribers delay no submission.

    .venv/bin/python -m benchmarks.checks.result_queues [--broker B] [--database D] [--jobs 1000] [--behind 1000000]

First the programs of examples/clients get the outcomes of ``--jobs`` jobs: Node, pika and the shell all of them,
aio-pika those with its ``reply_to``. Then single submissions are measured: alone, before and after, and beside a full
queue that refuses and an abandoned durable subscription to which ``--behind`` messages were published. Reported: the
duration of a submission, whether each job is executed once, and whether a healthy subscriber gets every event.

Exits 0 only if everything held.
"""

import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aio_pika
import anyio
import httpx

from benchmarks.rig.installation import Installation, installation, options, percentile
from benchmarks.rig.load import paced
from jobtape.broker import declare
from jobtape.broker.confirmed_channel import ConfirmedChannel
from jobtape.broker.link import Link
from jobtape.consumer.subscriber_message import subscriber_message
from jobtape.schemas.events import RELAYED_EVENTS
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.job import Job
from jobtape.schemas.topology import Bounds
from jobtape.view.store import CommittedEvent, Store
from tests.consumer.bound_queues import bound_queue, delete_queue, listening, without_repeats
from tests.ledger import Ledger
from tests.result_clients import ensure_amqp_consume, node_folder, run_client, wait_bound, wait_listening
from tests.waiting import eventually

LIMIT = 300.0
RATE = 50.0
IN_FLIGHT: Final = 500
SLOWER: Final = 1.2
"""Factor by which the median of submissions may grow beside broken subscribers, plus 20 ms for a busy machine."""


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--behind", type=int, default=1_000_000)
    parser.add_argument("--limit", type=int, default=Bounds().messages, help="messages that the subscription may keep")
    wanted = parser.parse_args()
    with installation(wanted) as (_, made):
        made.start("projector")
        made.start("api")
        made.start("worker")
        made.wait_ready()
        store = made.store()
        try:
            received = anyio.run(_clients, made, store, wanted.jobs)
            before = anyio.run(_submissions, made, store, wanted.jobs)
            beside = anyio.run(_beside_broken, made, store, wanted.jobs, wanted.behind, Bounds(messages=wanted.limit))
            after = anyio.run(_submissions, made, store, wanted.jobs)
        finally:
            store.close()
        print(f"alone, before: {before}")
        print(f"alone, after: {after}")
        print(f"beside a full queue and an abandoned subscription: {beside.load}")
        print(f"the subscription keeps {beside.kept} of {wanted.behind + wanted.jobs}, {wanted.limit} at most")
        print(f"refused by the full queue, from /metrics: {beside.refused:.0f}", flush=True)
    # The faster of the two, so that a machine that got slower does not hide slower submissions.
    alone = min(before.median, after.median)
    unchanged = beside.load.median < alone * SLOWER + 0.02 and beside.kept <= wanted.limit
    held = before.held and after.held and beside.load.held and beside.refused > 0
    return 0 if received and held and unchanged else 1


@dataclass
class Load:
    """Single submissions at a fixed rate: the ``seconds`` that each took, and the results of the checks."""

    seconds: list[float] = field(default_factory=list)
    executed_once: bool = False
    received_all: bool = False

    @property
    def median(self) -> float:
        """Median in seconds."""
        return percentile(self.seconds, 0.5)

    @property
    def held(self) -> bool:
        """Whether every job was executed once and its event received."""
        return self.executed_once and self.received_all

    def __str__(self) -> str:
        return (
            f"{len(self.seconds)} submissions, median {self.median * 1000:.1f} ms, "
            f"p99 {percentile(self.seconds, 0.99) * 1000:.1f} ms; each executed once: {self.executed_once}; "
            f"a healthy subscriber got all events: {self.received_all}"
        )


@dataclass
class BesideBroken:
    """Submissions beside broken subscribers: messages ``kept`` for the abandoned one, events ``refused``."""

    load: Load
    kept: int
    refused: float


async def _clients(made: Installation, store: Store, jobs: int) -> bool:
    """Return whether each program received the right events, and no others."""
    ensure_amqp_consume()
    url, namespace = made.environment["RABBITMQ_URL"], made.topology.namespace
    durable = f"{namespace}-billing"
    with tempfile.TemporaryDirectory() as folder:
        node = node_folder(Path(folder))
        async with AsyncExitStack() as stack:
            shell = await stack.enter_async_context(run_client(url, namespace, ["./results.sh"]))
            await wait_bound(shell, url, made.topology.results.name, "succeeded.probe")
            commands = {
                "pika": ([sys.executable, "results_pika.py", durable], None),
                "node": ([node, "results.mjs"], Path(folder)),
                "reply_to": ([sys.executable, "replies_aio_pika.py", "replies-7"], None),
            }
            running = {
                name: await stack.enter_async_context(run_client(url, namespace, command, *([where] if where else [])))
                for name, (command, where) in commands.items()
            }
            for each in running.values():
                await wait_listening(each)
            before = len(_outcomes(store))
            found = await asyncio.to_thread(_submit_and_wait, made, store, jobs)
            own = {job.id for job in found if job.reply_to == "replies-7"}
            rows = _outcomes(store)[before:]
            everything = {row.event_id for row in rows}
            expected = dict.fromkeys(("shell", "pika", "node"), everything)
            expected["reply_to"] = {row.event_id for row in rows if row.job_id in own}
            received: dict[str, list[str]] = {}

            def all_received() -> bool:
                received.update({name: each.words for name, each in running.items()})
                received["shell"] = [event["id"] for line in shell.lines if (event := json.loads(line))]
                return all(set(received[name]) == ids for name, ids in expected.items())

            with suppress(AssertionError):  # what is missing is printed
                await eventually(all_received, LIMIT)
    for name, ids in expected.items():
        repeats = len(received[name]) - len(set(received[name]))
        print(
            f"{name}: received {len(set(received[name]) & ids)} of {len(ids)} outcomes, {repeats} repeats shown",
            flush=True,
        )
    async with await aio_pika.connect(url) as connection:
        await delete_queue(connection, durable)
    return len(everything) == jobs and all(set(received[name]) == ids for name, ids in expected.items())


def _submit_and_wait(made: Installation, store: Store, jobs: int) -> list[Job]:
    ledger = Ledger()
    names = ("replies-7", "replies-8", None)
    items: list[dict[str, Any]] = [
        {"type": "add", "payload": {"x": n, "y": 1}, **({"reply_to": name} if (name := names[n % 3]) else {})}
        for n in range(jobs)
    ]
    with made.client() as http:
        paced.submit(http, items, ledger, rate=500)
    return paced.wait_final(store, ledger, LIMIT)


async def _submissions(made: Installation, store: Store, jobs: int) -> Load:
    """Submit jobs one at a time at a fixed rate, with a healthy subscriber."""
    load = Load()
    url = made.environment["RABBITMQ_URL"]
    async with (
        listening(url, made.topology, "succeeded.#") as received,
        httpx.AsyncClient(base_url=made.url, timeout=30) as http,
    ):
        ids = []
        started = time.monotonic()
        for n in range(jobs):
            await asyncio.sleep(max(0.0, started + n / RATE - time.monotonic()))
            sent = time.monotonic()
            answer = await http.post("/jobs", json={"type": "add", "payload": {"x": n, "y": 2}})
            load.seconds.append(time.monotonic() - sent)
            ids.append(answer.raise_for_status().json()["id"])
        mine = set(ids)

        def all_received() -> bool:
            return mine <= {str(message.headers["job"]) for message in received.messages}

        await eventually(all_received, LIMIT, what="the healthy subscriber has all events")
        own = [message.message_id for message in received.messages if message.headers["job"] in mine]
    load.received_all = len(without_repeats(own)) == jobs
    report = await made.checker().check(store)
    load.executed_once = report.repeated == 0 and not report.problems
    return load


async def _beside_broken(made: Installation, store: Store, jobs: int, behind: int, bounds: Bounds) -> BesideBroken:
    url = made.environment["RABBITMQ_URL"]
    connection = await aio_pika.connect(url)
    async with connection:
        refusing = {"x-max-length": 10, "x-overflow": "reject-publish"}
        full = await bound_queue(connection, made.topology, dict(refusing), "succeeded.#")
        abandoned = made.topology.subscription_queue("abandoned", Selection().in_words(), bounds)
        channel = await connection.channel()
        queue = await channel.declare_queue(abandoned.name, durable=True, arguments=abandoned.declared_arguments())
        await queue.bind(made.topology.results.name, "#")
        try:
            await _publish_often(url, made, _outcomes(store)[-1], behind)
            load = await _submissions(made, store, jobs)
            depth = await declare.depth(connection, abandoned.name)
            return BesideBroken(load, depth.messages if depth else -1, _refused(made))
        finally:
            await delete_queue(connection, full)
            await delete_queue(connection, abandoned.name)


async def _publish_often(url: str, made: Installation, row: CommittedEvent, times: int) -> None:
    """Publish one message ``times`` times, as the relay does. The full queue refuses nearly all of them."""
    link = Link(url, name="benchmark")
    link.start()
    channel = ConfirmedChannel(link, made.topology.results.name)
    message = subscriber_message(row)
    started = time.monotonic()
    for start in range(0, times, IN_FLIGHT):
        publishes = [
            channel.publish(message.body, "progressed.add", message.properties, mandatory=False)
            for _ in range(min(IN_FLIGHT, times - start))
        ]
        await asyncio.gather(*publishes)
    print(f"{times} messages published in {time.monotonic() - started:.0f} s", flush=True)
    await link.close()


def _refused(made: Installation) -> float:
    text = httpx.get(f"{made.url}/metrics", timeout=10).text
    lines = [line for line in text.splitlines() if line.startswith("jobtape_relay_refused_total ")]
    return float(lines[0].split()[1]) if lines else -1


def _outcomes(store: Store) -> list[CommittedEvent]:
    rows: list[CommittedEvent] = []
    cursor, full = 0, True
    while full:
        page = store.committed.page(cursor, 5000, Selection(events=RELAYED_EVENTS["final"]))
        rows += page.rows
        cursor, full = page.cursor, page.full
    return rows


if __name__ == "__main__":
    sys.exit(main())
