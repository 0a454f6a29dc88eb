"""The set of cancelled runs, and the pauses. A worker checks them before it runs a job.

Theory of operation. A job may be cancelled while its work waits on a queue, where nobody can remove it. So every
``cancelled`` event also goes to a separate stream, which keeps it longer than work is likely to wait there. A worker
reads that stream from its first message before it takes jobs, and follows it while it takes them. To know when it has
read everything, the worker publishes a marker message to the stream and reads until the marker comes.

The set holds complete ids, never hashes: with a hash, a job could be mistaken for a cancelled one and be lost. An id
and its run are stored as one integer of some 100 bytes, so ``MOST`` runs need 100 MB in each worker. The oldest runs
are removed when there are more than ``MOST`` or when they are older than ``KEPT``. Such a run may be executed; the
fold then ignores its outcome.

The position is checked as on the tape: a new reader starts at the last message that was read, and that message must
come first. If it does not, the stream was deleted, created again or trimmed. Then it is read from its first message;
reading an event twice is harmless.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from jobtape.broker import declare
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.broker.publisher import ExchangePublisher
from jobtape.broker.stream_reader import StreamReader, TapeMessage
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError, TapeMissing, UnreadableEvent
from jobtape.schemas.events import Cancelled, Submitted, decode
from jobtape.schemas.rules.rules import RulesInForce
from jobtape.schemas.topology import CANCEL_KEY, Topology

log = logging.getLogger(__name__)

KEPT: Final = timedelta(days=45)
"""How long the stream keeps its messages."""
MOST: Final = 1_000_000
"""Limit of the number of runs in the set."""
_GENERATIONS: Final = 8
"""Number of parts of the set. Old runs are removed one part at a time."""
PREFETCH: Final = 2000
"""Messages that the broker sends ahead of their acknowledgement."""
PAUSE: Final = 0.5
SILENCE: Final = 5.0
"""Seconds without a message, although a marker was confirmed, after which the position is taken as lost."""


@dataclass(slots=True)
class _Generation:
    began: datetime
    newest: datetime
    runs: set[int] = field(default_factory=set)


class CancelledRuns:
    """Set of cancelled runs, limited in number and age. ``now`` returns the time (UTC)."""

    def __init__(self, now: Callable[[], datetime], *, most: int = MOST) -> None:
        self._now = now
        self._most = most
        self._generations: deque[_Generation] = deque()

    def add(self, job_id: str, run: int, time: datetime) -> None:
        """Record that run ``run`` of the job was cancelled at ``time``."""
        now = self._now()
        time = min(time, now)
        last = self._generations[-1] if self._generations else None
        if last is None or len(last.runs) >= self._most // _GENERATIONS or time - last.began > KEPT / _GENERATIONS:
            last = _Generation(began=time, newest=time)
            self._generations.append(last)
        last.runs.add(_number(job_id, run))
        last.newest = max(last.newest, time)
        while self._generations and (self._generations[0].newest < now - KEPT or len(self) > self._most):
            self._generations.popleft()

    def has(self, job_id: str, run: int) -> bool:
        """Return whether this run was cancelled."""
        if not self._generations:
            return False
        number = _number(job_id, run)
        return any(number in generation.runs for generation in self._generations)

    def __len__(self) -> int:
        return sum(len(generation.runs) for generation in self._generations)


def _number(job_id: str, run: int) -> int:
    return int(job_id.replace("-", ""), 16) << 32 | run


class Cancellations:
    """Reader of the stream of cancellations. It calls ``on_cancel`` with job id and run for each cancelled run, and
    ``on_rules`` when ``rules`` has changed.

    Markers are published over ``publishing``, a separate link: a broker alarm blocks connections that publish, and it
    must not block the connection that consumes.
    """

    def __init__(
        self,
        publishing: Link,
        topology: Topology,
        *,
        on_cancel: Callable[[str, int], None],
        on_rules: Callable[[], None] = lambda: None,
    ) -> None:
        self.runs = CancelledRuns(lambda: datetime.now(UTC))
        self.rules = RulesInForce()
        """The pauses that are in force; the stream has no other rules."""
        self._on_rules = on_rules
        self._topology = topology
        self._on_cancel = on_cancel
        self._markers = ExchangePublisher(publishing, topology.events.name)
        self._last: TapeMessage | None = None

    async def catch_up(self, connection: Connection) -> StreamReader:
        """Read all past cancellations. Return a reader at the end of the stream, for ``following``.

        Raises BrokerUnavailable, TapeMissing or one of ``BROKER_ERRORS`` while the stream cannot be read to its end.
        """
        name = self._topology.cancels.name
        while True:
            reader = StreamReader(
                connection, name, "first" if self._last is None else self._last.offset, prefetch=PREFETCH
            )
            try:
                await reader.__aenter__()
            except TapeMissing:
                self._last = None
                await declare.declare(connection, self._topology)
                raise
            try:
                if await self._read_to_marker(reader):
                    return reader
            except BaseException:
                await reader.__aexit__(None, None, None)
                raise
            await reader.__aexit__(None, None, None)
            log.warning("the stream %s is not the one that was read last: reading it from its first message", name)
            self._last = None

    @asynccontextmanager
    async def following(self, connection: Connection, reader: StreamReader) -> AsyncIterator[None]:
        """Follow the stream inside the ``async with`` block, so that new cancellations are seen soon."""
        task = asyncio.create_task(self._follow(connection, reader), name="cancels")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, connection: Connection, reader: StreamReader | None) -> None:
        """Read the stream until this task is cancelled or the connection is lost."""
        while not connection.is_closed:
            try:
                reader = reader or await self.catch_up(connection)
                while True:
                    self._add(await reader.read(1000))
            except (JobtapeError, *BROKER_ERRORS) as error:
                log.warning("following the cancellations was interrupted: %s", reason_of(error))
            except Exception:
                log.exception("following the cancellations was interrupted")
            finally:
                if reader is not None:
                    await reader.__aexit__(None, None, None)
                    reader = None
            await asyncio.sleep(PAUSE)

    async def _read_to_marker(self, reader: StreamReader) -> bool:
        """Read up to a new marker. Return False when the messages do not continue from the last one that was read."""
        last = self._last
        marker = f"marker {uuid4().hex}".encode()
        await self._markers.publish(marker, CANCEL_KEY)
        while messages := await reader.read(1000, timeout=SILENCE):
            if last is not None:
                if (messages[0].offset, messages[0].body) != (last.offset, last.body):
                    return False
                last = None
            self._add(messages)
            if any(message.body == marker for message in messages):
                return True
        if last is None:
            raise BrokerUnavailable(f"the stream {self._topology.cancels.name} shows nothing for {SILENCE:g} s")
        return False

    def _add(self, messages: list[TapeMessage]) -> None:
        for message in messages:
            try:
                event = decode(message.body)
            except UnreadableEvent:  # a marker of this or another worker
                continue
            if isinstance(event, Submitted) and not self.runs.has(event.subject, event.data.run):
                order = event.data.order
                if self.rules.add(event.subject, order.type, order.payload):
                    self._on_rules()
            if isinstance(event, Cancelled) and self.rules.remove(event.subject):
                self._on_rules()
            if isinstance(event, Cancelled) and not self.runs.has(event.subject, event.data.run):
                self.runs.add(event.subject, event.data.run, event.time)
                self._on_cancel(event.subject, event.data.run)
        self._last = messages[-1]
