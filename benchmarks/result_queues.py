"""Result queues: clients in other languages hear of every outcome, and subscribers that misbehave cost nobody anything.

    .venv/bin/python -m benchmarks.result_queues [--broker B] [--database D] [--jobs 1000] [--behind 1000000]

First the programs of examples/clients hear of ``--jobs`` jobs: Node, pika and the shell of all, aio-pika of those that
were submitted with its ``reply_to``. Then single submissions are measured: alone, before and after, and beside a full
queue that refuses and an abandoned durable subscription that ``--behind`` messages were told: how long a submission
takes, how often a job is executed, and whether a subscriber in order hears of everything.

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

from benchmarks import paced
from benchmarks.installation import Installation
from benchmarks.installation_options import options, place
from jobtape.broker import declare
from jobtape.broker.confirmed_channel import ConfirmedChannel
from jobtape.broker.link import Link
from jobtape.consumer.subscriber_message import subscriber_message
from jobtape.schemas.events import RELAYED_EVENTS
from jobtape.schemas.job import Job
from jobtape.schemas.selection import Selection
from jobtape.schemas.topology import Bounds
from jobtape.view.store import CommittedEvent, Store
from tests.consumer.bound_queues import bound_queue, delete_queue, listening, without_repeats
from tests.ledger import Ledger
from tests.result_clients import client, ensure_amqp_consume, is_bound, listens, node_folder
from tests.waiting import eventually

LIMIT = 300.0
RATE = 50.0
IN_FLIGHT: Final = 500
SLOWER: Final = 1.2
"""How much longer half of the submissions may take beside subscribers that misbehave; a busy machine adds 20 ms."""


def main() -> int:
    """Run once; the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--behind", type=int, default=1_000_000)
    parser.add_argument("--limit", type=int, default=Bounds().messages, help="messages that the subscription may keep")
    wanted = parser.parse_args()
    with place(wanted, jobs="benchmarks.jobs") as (_, made):
        made.start("projector")
        made.start("api")
        made.start("worker")
        made.wait_ready()
        store = made.store()
        try:
            received = anyio.run(_clients, made, store, wanted.jobs)
            quiet = anyio.run(_submissions, made, store, wanted.jobs)
            beset = anyio.run(_beset, made, store, wanted.jobs, wanted.behind, Bounds(messages=wanted.limit))
            again = anyio.run(_submissions, made, store, wanted.jobs)
        finally:
            store.close()
        print(f"alone, before: {quiet}")
        print(f"alone, after: {again}")
        print(f"beside a full queue and an abandoned subscription: {beset.load}")
        print(f"the subscription keeps {beset.kept} of {wanted.behind + wanted.jobs}, {wanted.limit} at most")
        print(f"refused by the full queue, as /metrics says: {beset.refused:.0f}", flush=True)
    # The faster of the two: a machine that got slower meanwhile must not hide that acceptance did.
    alone = min(quiet.half, again.half)
    unchanged = beset.load.half < alone * SLOWER + 0.02 and beset.kept <= wanted.limit
    well = quiet.well and again.well and beset.load.well and beset.refused > 0
    return 0 if received and well and unchanged else 1


@dataclass
class Load:
    """Single submissions at a pace: ``seconds`` that each took; what held."""

    seconds: list[float] = field(default_factory=list)
    executed_once: bool = False
    heard_all: bool = False

    @property
    def half(self) -> float:
        """Seconds in which half of them were accepted."""
        return sorted(self.seconds)[len(self.seconds) // 2]

    @property
    def well(self) -> bool:
        """Whether all that was submitted was executed once, and heard of."""
        return self.executed_once and self.heard_all

    def __str__(self) -> str:
        late = sorted(self.seconds)[int(len(self.seconds) * 0.99)]
        return (
            f"{len(self.seconds)} submissions, half within {self.half * 1000:.1f} ms, "
            f"99 % within {late * 1000:.1f} ms; each executed once: {self.executed_once}; "
            f"a subscriber in order heard of all: {self.heard_all}"
        )


@dataclass
class Beset:
    """The same beside subscribers that misbehave: messages ``kept`` for the abandoned one, events ``refused``."""

    load: Load
    kept: int
    refused: float


async def _clients(made: Installation, store: Store, jobs: int) -> bool:
    """Whether each of the programs heard of what it should, and of nothing else."""
    ensure_amqp_consume()
    url, namespace = made.environment["RABBITMQ_URL"], made.topology.namespace
    durable = f"{namespace}-billing"
    with tempfile.TemporaryDirectory() as folder:
        node = node_folder(Path(folder))
        async with AsyncExitStack() as stack:
            shell = await stack.enter_async_context(client(url, namespace, ["./results.sh"]))
            await is_bound(shell, url, made.topology.results.name, "succeeded.probe")
            commands = {
                "pika": ([sys.executable, "results_pika.py", durable], None),
                "node": ([node, "results.mjs"], Path(folder)),
                "reply_to": ([sys.executable, "replies_aio_pika.py", "desk-7"], None),
            }
            running = {
                name: await stack.enter_async_context(client(url, namespace, command, *([where] if where else [])))
                for name, (command, where) in commands.items()
            }
            for each in running.values():
                await listens(each)
            before = len(_outcomes(store))
            found = await asyncio.to_thread(_submit_and_wait, made, store, jobs)
            own = {job.id for job in found if job.reply_to == "desk-7"}
            rows = _outcomes(store)[before:]
            everything = {row.event_id for row in rows}
            expected = dict.fromkeys(("shell", "pika", "node"), everything)
            expected["reply_to"] = {row.event_id for row in rows if row.job_id in own}
            received: dict[str, list[str]] = {}

            def all_heard() -> bool:
                received.update({name: each.words for name, each in running.items()})
                received["shell"] = [event["id"] for line in shell.lines if (event := json.loads(line))]
                return all(set(received[name]) == ids for name, ids in expected.items())

            with suppress(AssertionError):  # what is missing is printed
                await eventually(all_heard, LIMIT)
    for name, ids in expected.items():
        repeats = len(received[name]) - len(set(received[name]))
        print(
            f"{name}: heard of {len(set(received[name]) & ids)} of {len(ids)} outcomes, {repeats} repeats shown",
            flush=True,
        )
    async with await aio_pika.connect(url) as connection:
        await delete_queue(connection, durable)
    return len(everything) == jobs and all(set(received[name]) == ids for name, ids in expected.items())


def _submit_and_wait(made: Installation, store: Store, jobs: int) -> list[Job]:
    ledger = Ledger()
    names = ("desk-7", "desk-8", None)
    items: list[dict[str, Any]] = [
        {"type": "add", "payload": {"x": n, "y": 1}, **({"reply_to": name} if (name := names[n % 3]) else {})}
        for n in range(jobs)
    ]
    with made.client() as http:
        paced.submit(http, items, ledger, rate=500)
    return paced.wait_final(store, ledger, LIMIT)


async def _submissions(made: Installation, store: Store, jobs: int) -> Load:
    """One at a time, at a pace, with a subscriber in order."""
    load = Load()
    url = made.environment["RABBITMQ_URL"]
    async with (
        listening(url, made.topology, "succeeded.#") as received,
        httpx.AsyncClient(base_url=made.url, timeout=30) as http,
    ):
        ids = []
        began = time.monotonic()
        for n in range(jobs):
            await asyncio.sleep(max(0.0, began + n / RATE - time.monotonic()))
            sent = time.monotonic()
            answer = await http.post("/jobs", json={"type": "add", "payload": {"x": n, "y": 2}})
            load.seconds.append(time.monotonic() - sent)
            ids.append(answer.raise_for_status().json()["id"])
        mine = set(ids)

        def all_heard() -> bool:
            return mine <= {str(message.headers["job"]) for message in received.messages}

        await eventually(all_heard, LIMIT, what="the subscriber in order hears of all")
        own = [message.message_id for message in received.messages if message.headers["job"] in mine]
    load.heard_all = len(without_repeats(own)) == jobs
    report = await made.checker().check(store)
    load.executed_once = report.repeated == 0 and not report.problems
    return load


async def _beset(made: Installation, store: Store, jobs: int, behind: int, bounds: Bounds) -> Beset:
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
            await _tell(url, made, _outcomes(store)[-1], behind)
            load = await _submissions(made, store, jobs)
            depth = await declare.depth(connection, abandoned.name)
            return Beset(load, depth.messages if depth else -1, _refused(made))
        finally:
            await delete_queue(connection, full)
            await delete_queue(connection, abandoned.name)


async def _tell(url: str, made: Installation, row: CommittedEvent, times: int) -> None:
    """As the relay does, over and over: it is about what lies on the queues. The full one refuses nearly all."""
    link = Link(url, name="benchmark")
    link.start()
    channel = ConfirmedChannel(link, made.topology.results.name)
    message = subscriber_message(row)
    began = time.monotonic()
    for start in range(0, times, IN_FLIGHT):
        publishes = [
            channel.publish(message.body, "progressed.add", message.properties, mandatory=False)
            for _ in range(min(IN_FLIGHT, times - start))
        ]
        await asyncio.gather(*publishes)
    print(f"{times} messages told in {time.monotonic() - began:.0f} s", flush=True)
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
