"""Fold, rebuild and replay: how fast a tape becomes a view, again and again, and the memory of that."""

import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from uuid import uuid4

import aio_pika
import anyio

from benchmarks.report.section import Chart, Section, table
from benchmarks.rig.installation import Installation, until
from benchmarks.rig.load import tapes
from benchmarks.rig.plan import Plan
from benchmarks.rig.stage import Stage, log
from benchmarks.rig.systems import jobtape
from jobtape.consumer.replays.long_task import TaskSlice
from jobtape.consumer.replays.rebuild import Rebuilder
from jobtape.consumer.replays.replay import Replay, replay_to_queue
from jobtape.consumer.replays.tape_source import read_tape
from jobtape.process import garbage
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.events import decode
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job
from jobtape.view.store import Store

MAX_GROWTH: Final = 64.0
"""MiB of memory after the first tenth of the work."""
LONG: Final = 3600.0
DATABASES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
FOLD = "fold by a projector that is behind"
FOLD_RELAY = "the same while the relay publishes"
ARCHIVE, STREAM = "rebuild from the archive", "rebuild from the stream"
REPLAY = "replay to a queue"
BOUND = "bound: decode and fold alone, one core"

Rates = dict[str, list[float]]


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
    def growth(self) -> float:
        """How much it grew after the first tenth, in MiB."""
        return max(self.tenths[1:], default=0.0) - (self.tenths[1] if len(self.tenths) > 1 else 0.0)


def measure(stage: Stage, plan: Plan) -> Section:
    """Measure with both databases in turn. Raises RuntimeError if a rebuilt view differs from the one that served."""
    garbage.collect_rarely()  # as a rebuild and a replay do in processes of their own
    found: dict[str, Rates] = {name: defaultdict(list) for name in DATABASES.values()}
    grown = 0.0
    for number in range(plan.long_rounds):
        for database, name in DATABASES.items():
            with tempfile.TemporaryDirectory(dir=stage.folder, prefix="folding-") as folder, ExitStack() as stack:
                made = jobtape(stage, Path(folder), stack, database).installation
                grown = max(grown, _measure(made, plan.events, found[name]))
            rates = ", ".join(f"{what} {values[-1]:,.0f}" for what, values in found[name].items())
            log(f"round {number + 1}, {name}: {rates} events/s")
        bound = _alone(plan.events // 3)
        for rates_of in found.values():
            rates_of[BOUND].append(bound)
    medians = {
        name: {what: statistics.median(values) for what, values in rates.items()} for name, rates in found.items()
    }
    chart = Chart("folding", "Fold, rebuild and replay", "events a second", medians)
    return Section("folding", "\n\n".join(_text(plan, medians, grown)), [chart])


def _text(plan: Plan, medians: dict[str, dict[str, float]], grown: float) -> Iterable[str]:
    yield f"{plan.events:,} events of {plan.events // 3:,} jobs, in events a second (rounds: {plan.long_rounds}):"
    rows = [
        [what, *(f"{rates[what]:,.0f}" for rates in medians.values())]
        for what in (FOLD, FOLD_RELAY, ARCHIVE, STREAM, REPLAY, BOUND)
    ]
    yield table(["", *medians], rows)
    yield (
        "Each new view was equal to the old one. After the first tenth of the work the memory of the process grew "
        f"by {grown:.0f} MiB at most."
    )


def _measure(made: Installation, events: int, rates: Rates) -> float:
    """Write, fold, rebuild twice and replay one tape. Return the largest growth of memory in MiB."""
    made.start("api")  # declares the exchanges and queues, but not the tape
    projector = made.start("projector")
    made.wait_ready()
    projector.stop()
    store = Store(made.environment["DATABASE_URL"], timeout=60)
    try:
        grown = []
        for number, (what, relay) in enumerate(((FOLD, "off"), (FOLD_RELAY, "final"))):
            anyio.run(tapes.write, made, tapes.job_ids_of(events // 3, number * events // 3))
            grown.append(_folded(made, store, events, relay, rates[what]))
        grown += [
            _rebuilt(made, store, source, rates[what]) for what, source in ((ARCHIVE, "archive"), (STREAM, "stream"))
        ]
        anyio.run(_replayed, made, store, events, rates[REPLAY])
        return max(grown)
    finally:
        store.close()


def _folded(made: Installation, store: Store, events: int, relay: str, rates: list[float]) -> float:
    begin = store.checkpoint()
    first = (begin and begin.offset) or 0
    projector = made.start("projector", JOBTAPE_RELAY_EVENTS=relay)
    memory = Memory(projector.process.pid)
    done, begun_at = first, 0.0
    # From the first commit to the last: starting a process is another figure.
    started = time.monotonic()

    def folded_all() -> bool:
        nonlocal done, begun_at, started
        checkpoint = store.checkpoint()
        done = (checkpoint and checkpoint.offset) or 0
        if done == first:
            started = time.monotonic()
        memory.measure((done - first) / events)
        return done - first >= events - 1

    until(folded_all, "all events are folded", LONG)
    rates.append(events / (time.monotonic() - started))
    projector.stop()
    return memory.growth


def _rebuilt(made: Installation, store: Store, source: str, rates: list[float]) -> float:
    memory = Memory()
    task_slice = TaskSlice(lambda fraction, _: memory.measure(fraction), time.monotonic() + LONG, "events", share=0.95)
    working = Rebuilder(store, task_slice)
    checkpoint = store.checkpoint()
    assert checkpoint is not None and checkpoint.offset is not None
    started = time.monotonic()
    if source == "stream":
        state = store.rebuilds.begin(source, cursor_of(checkpoint.epoch, 0) - 1)
        messages = read_tape(made.environment["RABBITMQ_URL"], made.topology, state.cursor, checkpoint)
        state = working.from_archive(asyncio.run(working.from_stream(state, messages)))
    else:
        state = working.from_archive(store.rebuilds.begin(source, by_job=True))
    rates.append(checkpoint.offset / (time.monotonic() - started))
    found = working.differences(state, 5)
    if (found.changed, found.missing, found.added) != (0, 0, 0):
        raise RuntimeError(f"the view that was rebuilt from the {source} differs: {found}")
    working.switch(state)
    return memory.growth


async def _replayed(made: Installation, store: Store, count: int, rates: list[float]) -> None:
    """Replay the first events of the tape to a new queue."""
    url, name = made.environment["RABBITMQ_URL"], f"bench-{uuid4().hex}"
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name, durable=True)
        task_slice = TaskSlice(lambda fraction, words: None, time.monotonic() + LONG, "events")
        started = time.monotonic()
        # Some of the messages up to this cursor are barriers.
        sent = await replay_to_queue(url, store, Replay(name, name, 0, cursor_of(1, count), Selection()), task_slice)
        assert 0 < sent <= count + 1
        rates.append(sent / (time.monotonic() - started))
        await queue.delete(if_empty=False)


def _alone(jobs: int) -> float:
    """Return how many events a second one process decodes and folds when nothing else happens."""
    bodies = [message.body for message in tapes.messages(tapes.job_ids_of(jobs))]
    known: dict[str, Job] = {}
    started = time.perf_counter()
    for number, body in enumerate(bodies):
        event = decode(body)
        known[event.subject] = evolve(known.get(event.subject), event, cursor_of(1, number))
    return len(bodies) / (time.perf_counter() - started)
