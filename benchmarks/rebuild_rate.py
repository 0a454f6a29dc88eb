"""Measures how fast a tape is folded, rebuilt and replayed, and the memory of that.

    .venv/bin/python -m benchmarks.rebuild_rate [--broker B] [--database D] [--jobs 333334] [--replayed 100000]

Writes a tape of jobs with three events each. A projector folds it into an empty view, as after the loss of the
database. Then the view is rebuilt from its archive and from the tape, as the built-in job does, and some events are
replayed to a queue. Reported: events a second, messages per chunk of the tape, and the memory after each tenth.

Exits 0 only if each new view equals the old one and the memory grew by at most 64 MiB after the first tenth.
"""

import asyncio
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Final
from uuid import uuid4

import aio_pika
import anyio
from aiormq import spec

from benchmarks.rig.brokers import Broker, Container
from benchmarks.rig.installation import Installation, Part, installation, options, until
from benchmarks.time_travel import job_ids_of, tape
from jobtape.broker.confirmed_channel import ConfirmedChannel
from jobtape.broker.link import Link
from jobtape.consumer.replays.long_task import TaskSlice
from jobtape.consumer.replays.rebuild import ViewRebuild
from jobtape.consumer.replays.replay import Replay, replay_to_queue
from jobtape.consumer.replays.tape_source import read_tape
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.events import encode
from jobtape.schemas.selection import Selection
from jobtape.schemas.topology import event_key
from jobtape.view.store import Store
from tools.brokers.docker import docker
from tools.brokers.node import PrivateNode

MAX_GROWTH: Final = 64.0
"""MiB of memory after the first tenth."""
IN_FLIGHT: Final = 500
LONG: Final = 3600.0
INDEX_HEADER: Final = 8
INDEX_ENTRY: Final = 29
"""Bytes of the header of a stream's index file, and of its entry for each chunk (``osiris_log`` of RabbitMQ's
osiris)."""


def main() -> int:
    """Write, fold, rebuild twice and replay a tape, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=333_334)
    parser.add_argument("--replayed", type=int, default=100_000)
    wanted = parser.parse_args()
    events = 3 * wanted.jobs
    with installation(wanted) as (broker, made):
        made.start("api")  # declares the exchanges and queues, but not the tape
        projector = made.start("projector")
        made.wait_ready()
        projector.stop()
        started = time.monotonic()
        anyio.run(write, made, wanted.jobs)
        print(f"{events} events written at {events / (time.monotonic() - started):.0f}/s", flush=True)
        print(messages_per_chunk(broker, made.topology.log.name, events), flush=True)
        store = Store(made.environment["DATABASE_URL"], timeout=60)
        try:
            flat = folded(made, store, events)
            for source in ("archive", "stream"):
                flat &= rebuilt(made, store, source, events)
            anyio.run(replayed, made, store, wanted.replayed)
        finally:
            store.close()
    return 0 if flat else 1


async def write(made: Installation, jobs: int) -> None:
    """Publish the events of ``jobs`` jobs, IN_FLIGHT at a time."""
    link = Link(made.environment["RABBITMQ_URL"], name="benchmark")
    link.start()
    channel = ConfirmedChannel(link, made.topology.events.name)
    rest = enumerate(tape(job_ids_of(jobs)))
    while window := list(islice(rest, IN_FLIGHT)):
        publishes = [
            channel.publish(
                encode(event),
                event_key(event.name, "add"),
                spec.Basic.Properties(delivery_mode=2, message_id=str(n)),
                mandatory=True,
            )
            for n, event in window
        ]
        await asyncio.gather(*publishes)
    await link.close()


def messages_per_chunk(broker: Broker, stream: str, messages: int) -> str:
    """Return a line with the number of messages in a chunk of the stream, if the broker's files can be read."""
    stream = stream.replace(".", "_")  # as in the name of its folder
    if isinstance(broker, PrivateNode):
        indices = (broker.folder / "data").rglob(f"stream/*{stream}*/*.index")
        sizes = [path.stat().st_size for path in indices]
    elif isinstance(broker, Container):
        search = ["find", "/var/lib/rabbitmq", "-path", f"*/stream/*{stream}*/*.index", "-printf", "%s "]
        sizes = [int(size) for size in docker("exec", broker.name, *search).split()]
    else:
        return "messages per chunk: unknown, the files of this broker cannot be read"
    chunks = sum((size - INDEX_HEADER) // INDEX_ENTRY for size in sizes)
    return f"{messages} messages in {chunks} chunks, {messages / chunks:.1f} in each"


class Memory:
    """The resident memory of a process after each tenth of its work (Linux only)."""

    def __init__(self, pid: int | str = "self") -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.tenths: list[float] = []

    def measure(self, fraction: float) -> None:
        """Measure when another tenth of the work is done."""
        if fraction >= len(self.tenths) / 10:
            self.tenths.append(int(self._status.read_text().partition("VmRSS:")[2].split()[0]) / 1024)

    @property
    def flat(self) -> bool:
        """Whether it grew by at most MAX_GROWTH after the first tenth."""
        return max(self.tenths) - self.tenths[1] <= MAX_GROWTH

    def __str__(self) -> str:
        return "MiB at each tenth: " + " ".join(f"{each:.0f}" for each in self.tenths)


def folded(made: Installation, store: Store, events: int) -> bool:
    """Fold the tape with a projector, and return whether the memory stayed flat."""
    started = time.monotonic()
    projector: Part = made.start("projector", JOBTAPE_RELAY_EVENTS="off")
    memory = Memory(projector.process.pid)

    def folded_all() -> bool:
        checkpoint = store.checkpoint()
        done = (checkpoint and checkpoint.offset) or 0
        memory.measure(done / events)
        return done >= events

    until(folded_all, "all events are folded", LONG)
    print(f"folded by a projector at {events / (time.monotonic() - started):.0f} events/s; {memory}", flush=True)
    projector.stop()
    return memory.flat


def rebuilt(made: Installation, store: Store, source: str, events: int) -> bool:
    """Rebuild the view from ``source``, and return whether the views are equal and the memory stayed flat."""
    memory = Memory()
    task_slice = TaskSlice(lambda fraction, _: memory.measure(fraction), time.monotonic() + LONG, "events", share=0.95)
    working = ViewRebuild(store, task_slice)
    started = time.monotonic()
    if source == "stream":
        checkpoint = store.checkpoint()
        assert checkpoint is not None
        state = store.rebuilds.begin(source, cursor_of(checkpoint.epoch, 0) - 1)
        messages = read_tape(made.environment["RABBITMQ_URL"], made.topology, state.cursor, checkpoint)
        state = working.from_archive(asyncio.run(working.from_stream(state, messages)))
    else:
        state = working.from_archive(store.rebuilds.begin(source, by_job=True))
    done = time.monotonic()
    found = working.differences(state, 5)
    compared = time.monotonic()
    working.switch(state)
    print(
        f"rebuilt from the {source} at {events / (done - started):.0f} events/s, compared {found.compared} jobs in "
        f"{compared - done:.1f} s, switched in {time.monotonic() - compared:.1f} s; {memory}",
        flush=True,
    )
    return memory.flat and (found.changed, found.missing, found.added) == (0, 0, 0)


async def replayed(made: Installation, store: Store, count: int) -> None:
    """Replay the first events of the tape to a new queue."""
    url, name = made.environment["RABBITMQ_URL"], f"bench-{uuid4().hex}"
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name, durable=True)
        task_slice = TaskSlice(lambda fraction, words: None, time.monotonic() + LONG, "events")
        until = cursor_of(1, count)  # some of them are barriers
        started = time.monotonic()
        sent = await replay_to_queue(url, store, Replay(name, name, 0, until, Selection()), task_slice)
        print(f"replayed {sent} events to a queue at {sent / (time.monotonic() - started):.0f}/s", flush=True)
        assert 0 < sent <= count + 1
        await queue.delete(if_empty=False)


if __name__ == "__main__":
    sys.exit(main())
