"""Compare the view with an independent fold of the tape, and the ledger of a client with both.

It is independent because it reads the stream with plain aio-pika and folds the raw messages with ``schemas.fold`` only.
It publishes a barrier of its own, which marks the end of the tape and which the view must have passed too.
"""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from jobtape.schemas import cursor as position
from jobtape.schemas import fold
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import JobEvent, decode
from jobtape.schemas.job import FINAL, Job
from jobtape.schemas.messages.barrier import barrier_body
from jobtape.schemas.topology import BARRIER_KEY, Topology
from jobtape.view.store import Checkpoint, HistoryRow, JobQuery, Store, UnreadableRow
from tests.counted import Counted
from tests.gate_check import gate_problems
from tests.ledger import Ledger
from tests.waiting import eventually

PAGE = 500
READ_TIMEOUT = 300.0
_FINAL_NAMES = frozenset(state.value for state in FINAL)


@dataclass(slots=True)
class Report:
    """The result of a comparison. ``problems`` is empty if view and tape agree.

    ``repeated`` counts executions after the first of an attempt.
    """

    problems: list[str] = field(default_factory=list)
    jobs: int = 0
    events: int = 0
    executions: int = 0
    repeated: int = 0

    def __str__(self) -> str:
        numbers = f"{self.jobs} jobs, {self.events} events, {self.executions} executions ({self.repeated} repeated)"
        shown = [*self.problems[:20], *(["…"] if len(self.problems) > 20 else [])]
        return "\n".join([numbers, *shown])


class Checker:
    """Reads the tape of ``topology``, also again after it was created again, and compares."""

    def __init__(self, url: str, topology: Topology) -> None:
        self.messages: dict[int, tuple[str, bytes]] = {}
        """Cursor -> (routing key, body) of all messages that were read."""
        self._url = url
        self._topology = topology

    async def check(self, store: Store, ledger: Ledger | None = None, *, epoch: int = 1, timeout: float = 60) -> Report:
        """Read the tape, wait until the view has passed it, and compare everything, also the view's checkpoint.

        Without ``ledger``, compare only the view and the tape. ``timeout`` is in seconds.
        """
        marker = await self.read(epoch)
        await eventually(
            lambda: asyncio.to_thread(store.passed_barrier, marker),
            timeout,
            what="the view passes the checker's barrier",
        )
        deadline = time.monotonic() + timeout
        while True:
            checkpoint = await self._read_on(store, epoch)
            report = await asyncio.to_thread(
                self._compare, store, checkpoint, ledger or Ledger(ok=list(self._folded()))
            )
            # What is folded during a comparison may look like a difference. Then compare again.
            moved = await asyncio.to_thread(store.checkpoint)
            if not report.problems or (moved and moved.cursor == checkpoint.cursor) or time.monotonic() > deadline:
                return report

    async def _read_on(self, store: Store, epoch: int) -> Checkpoint:
        """Read on to the view's checkpoint and return it: projectors and workers may have published more."""
        checkpoint = await asyncio.to_thread(store.checkpoint)
        assert checkpoint is not None
        if checkpoint.epoch == epoch and checkpoint.cursor > max(self.messages):
            async with await aio_pika.connect(self._url) as connection:
                await self._read_until(connection, epoch, lambda cursor, _: cursor >= checkpoint.cursor)
        return checkpoint

    async def read(self, epoch: int = 1) -> str:
        """Publish a barrier and read the tape up to it. Return the barrier's name."""
        marker = f"checker-{uuid4().hex[:12]}"
        body = barrier_body(marker, 1)
        async with await aio_pika.connect(self._url) as connection:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            exchange = await channel.get_exchange(self._topology.events.name, ensure=False)
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, message_id=uuid4().hex)
            await exchange.publish(message, BARRIER_KEY, mandatory=True)
            await self._read_until(connection, epoch, lambda _, found: found == body)
        return marker

    async def _read_until(
        self, connection: AbstractConnection, epoch: int, is_last: Callable[[int, bytes], bool]
    ) -> None:
        """Read the tape from its first message up to the one for whose cursor and body ``is_last`` is true."""
        ended = asyncio.Event()

        async def take(delivery: AbstractIncomingMessage) -> None:
            if ended.is_set():
                return
            offset = delivery.headers["x-stream-offset"]
            assert isinstance(offset, int)
            cursor = position.cursor_of(epoch, offset)
            self.messages[cursor] = (delivery.routing_key or "", delivery.body)
            if is_last(cursor, delivery.body):
                ended.set()
            await delivery.ack()

        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=500)
        queue = await channel.get_queue(self._topology.log.name, ensure=False)
        await queue.consume(take, arguments={"x-stream-offset": "first"})
        async with asyncio.timeout(READ_TIMEOUT):
            await ended.wait()

    def events(self) -> Iterator[tuple[JobEvent, int]]:
        """Return the readable events with their cursors, in the order of the tape."""
        for cursor in sorted(self.messages):
            key, body = self.messages[cursor]
            if key != BARRIER_KEY:
                try:
                    yield decode(body), cursor
                except UnreadableEvent:
                    continue

    def _folded(self) -> dict[str, Job]:
        return fold.fold(self.events())

    def _compare(self, store: Store, checkpoint: Checkpoint, ledger: Ledger) -> Report:
        events = list(self.events())
        report = Report(events=len(events))
        self._count_executions(events, report)
        tape = self._folded()
        view = {job.id: job for job in _all_jobs(store)}
        report.jobs = len(view)
        add = report.problems.append
        for job_id in ledger.ok:
            if job_id not in tape or job_id not in view:
                add(f"lost: {job_id} was accepted, tape {job_id in tape}, view {job_id in view}")
            elif tape[job_id].submitted_at is None:
                add(f"lost: {job_id} was accepted, and its submission is not on the tape")
        for job_id in sorted({*tape, *view} - ledger.sent):
            add(f"phantom: {job_id} was never sent")
        for job_id in sorted({*tape, *view}):
            report.problems += _differences(job_id, tape.get(job_id), view.get(job_id))
        for job_id in ledger.sent & tape.keys():
            if not tape[job_id].final:
                add(f"stuck: {job_id} is {tape[job_id].state}")
        report.problems += gate_problems(events)
        self._compare_history(store, events, report)
        self._compare_unreadable(store, report)
        self._compare_checkpoint(checkpoint, report)
        return report

    def _compare_history(self, store: Store, events: list[tuple[JobEvent, int]], report: Report) -> None:
        expected: list[HistoryRow] = []
        counted = Counted()
        finals: Counter[tuple[str, int]] = Counter()
        jobs: dict[str, Job] = {}
        for event, cursor in events:
            before = jobs.get(event.subject)
            after = jobs[event.subject] = fold.evolve(before, event, cursor)
            accepted = after is not before
            counted.read(event, cursor)
            expected.append(
                HistoryRow(
                    cursor=cursor,
                    job_id=event.subject,
                    name=event.name,
                    time=event.time,
                    accepted=accepted,
                    state=after.state,
                    reason=after.reason,
                    event=self.messages[cursor][1].decode(),
                )
            )
            if accepted:
                finals[event.subject, event.data.run] += event.name in _FINAL_NAMES
        report.problems += [f"{n} accepted outcomes: {run}" for run, n in finals.items() if n > 1]
        found = list(_all_history(store))
        if [row.cursor for row in found] != [row.cursor for row in expected]:
            report.problems.append(f"history: {len(found)} rows, {len(expected)} expected, or not the same")
        for mine, theirs in zip(expected, found, strict=False):
            if mine != theirs:
                report.problems.append(f"history at {mine.cursor}: {theirs} instead of {mine}")
        report.problems += counted.differences(store)

    def _compare_unreadable(self, store: Store, report: Report) -> None:
        kept = {row.cursor: row for row in _all_unreadable(store)}
        readable = {cursor for _, cursor in self.events()}
        for cursor, (key, body) in self.messages.items():
            if key == BARRIER_KEY or cursor in readable:
                continue
            row = kept.pop(cursor, None)
            if row is None or row.body != body or not row.reason:
                report.problems.append(f"unreadable at {cursor} is not kept as it is: {row}")
        report.problems += [f"unreadable at {cursor} is not on the tape" for cursor in kept]

    def _compare_checkpoint(self, checkpoint: Checkpoint, report: Report) -> None:
        """Check that the checkpoint has the cursor and the digest of the last message that was read."""
        last = max(self.messages)
        digest = hashlib.sha256(self.messages[last][1]).hexdigest()
        if (checkpoint.cursor, checkpoint.digest) != (last, digest):
            report.problems.append(f"the checkpoint is {checkpoint}, the tape has {digest} at {last}")

    @staticmethod
    def _count_executions(events: list[tuple[JobEvent, int]], report: Report) -> None:
        of_attempt: dict[tuple[str, int, int], set[str]] = {}
        for event, _ in events:
            execution = getattr(event.data, "execution", None)
            if execution is not None:
                of_attempt.setdefault((event.subject, event.data.run, event.data.attempt), set()).add(execution)
        report.executions = sum(len(ids) for ids in of_attempt.values())
        report.repeated = report.executions - len(of_attempt)


def _differences(job_id: str, tape: Job | None, view: Job | None) -> list[str]:
    if tape is None or view is None:
        return [f"view and tape differ: {job_id} on the tape {tape is not None}, in the view {view is not None}"]
    return [
        f"view and tape differ: {job_id}.{name}: {getattr(view, name)!r} instead of {getattr(tape, name)!r}"
        for name in (each.name for each in fields(Job))
        if getattr(tape, name) != getattr(view, name)
    ]


def _all_jobs(store: Store) -> Iterator[Job]:
    before: str | None = None
    while page := store.list_jobs(JobQuery(before=before, limit=PAGE)):
        yield from page
        before = page[-1].id


def _all_history(store: Store) -> Iterator[HistoryRow]:
    after = 0
    while page := store.history(after=after, limit=PAGE):
        yield from page
        after = page[-1].cursor


def _all_unreadable(store: Store) -> Iterator[UnreadableRow]:
    after = 0
    while page := store.unreadable(after=after, limit=PAGE):
        yield from page
        after = page[-1].cursor
