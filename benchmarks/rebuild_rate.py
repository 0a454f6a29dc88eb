"""How fast a tape is folded, rebuilt and replayed, and how much memory that takes.

    .venv/bin/python -m benchmarks.rebuild_rate [--broker B] [--database D] [--jobs 333334] [--replayed 100000]

Writes a tape of jobs with three events each, which a projector folds into an empty view, as after the loss of the
database. Then the view is rebuilt from its archive and from the tape, as the job does it, and some events are replayed
to a queue. Reported: events a second, the messages per chunk of the tape, and the resident memory at each tenth.

Exits 0 only if each new view says what the old one did and the memory stayed flat (within 64 MiB from the first tenth).
"""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from itertools import islice
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import aio_pika
import anyio
from aiormq import spec

from benchmarks.chunks import messages_per_chunk
from benchmarks.installation import Installation, Part
from benchmarks.installation_options import options, place
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
from jobtape.view.store import Rebuild, Store

FLAT: Final = 64.0
"""MiB."""
IN_FLIGHT: Final = 500
LONG: Final = 3600.0
LOOK: Final = 0.2


def main() -> int:
    """Write, fold, rebuild twice, replay; the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=333_334)
    parser.add_argument("--replayed", type=int, default=100_000)
    wanted = parser.parse_args()
    events = 3 * wanted.jobs
    with place(wanted, jobs="benchmarks.jobs") as (broker, made):
        made.start("api")  # declares the exchanges and queues, but not the tape
        projector = made.start("projector")
        made.wait_ready()
        projector.stop()
        began = time.monotonic()
        anyio.run(write, made, wanted.jobs)
        print(f"{events} events written at {events / (time.monotonic() - began):.0f}/s", flush=True)
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
    """All events, IN_FLIGHT at a time."""
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


class Memory:
    """The resident memory of a process at each tenth of the way."""

    def __init__(self, pid: int | str = "self") -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.tenths: list[float] = []

    def look(self, fraction: float) -> None:
        """Notes it when another tenth is reached (Linux only)."""
        if fraction >= len(self.tenths) / 10:
            self.tenths.append(int(self._status.read_text().partition("VmRSS:")[2].split()[0]) / 1024)

    @property
    def flat(self) -> bool:
        """Whether it grew by no more than FLAT after the first tenth."""
        return max(self.tenths) - self.tenths[1] <= FLAT

    def __str__(self) -> str:
        return "MiB at each tenth: " + " ".join(f"{each:.0f}" for each in self.tenths)


def folded(made: Installation, store: Store, events: int) -> bool:
    """By a projector, from the first message on."""
    began = time.monotonic()
    projector: Part = made.start("projector", JOBTAPE_RELAY_EVENTS="off")  # after a loss, nothing is told again
    memory = Memory(projector.process.pid)
    while (done := offset(store)) < events:
        memory.look(done / events)
        assert time.monotonic() - began < LONG, f"only {done} events are folded"
        time.sleep(LOOK)
    print(f"folded by a projector at {events / (time.monotonic() - began):.0f} events/s; {memory}", flush=True)
    projector.stop()
    return memory.flat


def offset(store: Store) -> int:
    """How far the view is."""
    checkpoint = store.checkpoint()
    return checkpoint.offset or 0 if checkpoint else 0


def rebuilt(made: Installation, store: Store, source: str, events: int) -> bool:
    """As the job does it."""
    memory = Memory()
    part = TaskSlice(lambda fraction, _: memory.look(fraction), time.monotonic() + LONG, "events", share=0.95)
    working = ViewRebuild(store, part)
    began = time.monotonic()
    if source == "stream":
        checkpoint = store.checkpoint()
        assert checkpoint is not None
        state = store.rebuilds.begin(source, cursor_of(checkpoint.epoch, 0) - 1)
        messages = read_tape(made.environment["RABBITMQ_URL"], made.topology, state.cursor, checkpoint)
        state = working.from_archive(run(lambda: working.from_stream(state, messages)))
    else:
        state = working.from_archive(store.rebuilds.begin(source))
    done = time.monotonic()
    found = working.differences(state, 5)
    compared = time.monotonic()
    working.switch(state)
    print(
        f"rebuilt from the {source} at {events / (done - began):.0f} events/s, compared {found.compared} jobs in "
        f"{compared - done:.1f} s, switched in {time.monotonic() - compared:.1f} s; {memory}",
        flush=True,
    )
    return memory.flat and (found.changed, found.missing, found.added) == (0, 0, 0)


def run(work: Callable[[], Coroutine[Any, Any, Rebuild]]) -> Rebuild:
    """From the synchronous side."""
    return asyncio.run(work())


async def replayed(made: Installation, store: Store, count: int) -> None:
    """The first events of the tape, to a queue of this run's own."""
    url, name = made.environment["RABBITMQ_URL"], f"bench-{uuid4().hex}"
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name, durable=True)
        part = TaskSlice(lambda fraction, words: None, time.monotonic() + LONG, "events")
        until = cursor_of(1, count)  # some of them are barriers
        began = time.monotonic()
        sent = await replay_to_queue(url, store, Replay(name, name, 0, until, Selection()), part)
        print(f"replayed {sent} events to a queue at {sent / (time.monotonic() - began):.0f}/s", flush=True)
        assert 0 < sent <= count + 1
        await queue.delete(if_empty=False)


if __name__ == "__main__":
    sys.exit(main())
