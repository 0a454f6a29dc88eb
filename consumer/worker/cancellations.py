"""What was cancelled: the set of cancelled runs that a worker asks before it runs anything.

Theory of operation. A job may be cancelled while it waits on the delay ladder or on its queue, where nobody can take
it out. So every ``cancelled`` also goes to a stream of its own, which keeps it longer than any job can be delayed. A
worker reads that stream from its first message before it takes jobs, and follows it while it does. How far is far
enough is known by a marker: a message that the worker itself puts behind what is there.

The set holds whole ids, never hashes: a job that was mistaken for a cancelled one would be lost. An id and its run are
one integer: some 100 bytes of memory each, so at the most that is kept (``MOST``) 100 MB a worker. What is beyond it,
or older than ``KEPT``, is forgotten, oldest first; a forgotten one may be executed, and its outcome is refused by the
fold.

The position is checked like the tape's: attached again at the last message read, that very message must come first.
Otherwise (the stream was deleted, created again, or has been trimmed) it is read from the start; repeats are harmless.
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
from jobtape.broker.side_publisher import SidePublisher
from jobtape.broker.stream_reader import Recorded, StreamReader
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError, TapeMissing, UnreadableEvent
from jobtape.schemas.events import Cancelled, decode
from jobtape.schemas.topology import Topology

log = logging.getLogger(__name__)

KEPT: Final = timedelta(days=45)
"""As long as the stream keeps them."""
MOST: Final = 1_000_000
_GENERATIONS: Final = 8
"""What is forgotten goes a generation at a time."""
PREFETCH: Final = 2000
PAUSE: Final = 0.5
SILENCE: Final = 5.0
"""Seconds without a message though a marker was confirmed: the position does not exist any more."""


@dataclass(slots=True)
class _Generation:
    began: datetime
    newest: datetime
    runs: set[int] = field(default_factory=set)


class CancelledRuns:
    """The set, bounded in number and age. ``now`` gives the time (UTC)."""

    def __init__(self, now: Callable[[], datetime], *, most: int = MOST) -> None:
        self._now = now
        self._most = most
        self._generations: deque[_Generation] = deque()

    def add(self, job_id: str, run: int, time: datetime) -> None:
        """Run ``run`` of the job was cancelled at ``time``."""
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
        """Whether this run was cancelled."""
        if not self._generations:
            return False
        number = _number(job_id, run)
        return any(number in generation.runs for generation in self._generations)

    def __len__(self) -> int:
        return sum(len(generation.runs) for generation in self._generations)


def _number(job_id: str, run: int) -> int:
    return int(job_id.replace("-", ""), 16) << 32 | run


class Cancellations:
    """Follows the stream over the connections it is given. ``on_cancel`` is called with job id and run for each.

    Markers are published over ``publishing``: a connection that publishes may be blocked by an alarm, and the one that
    consumes must not be.
    """

    def __init__(self, publishing: Link, topology: Topology, *, on_cancel: Callable[[str, int], None]) -> None:
        self.runs = CancelledRuns(lambda: datetime.now(UTC))
        self._topology = topology
        self._on_cancel = on_cancel
        self._markers = SidePublisher(publishing, "")
        self._last: Recorded | None = None

    async def catch_up(self, connection: Connection) -> StreamReader:
        """Returns when all that had been cancelled before is known; from there on a reader for ``following``.

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
        """Inside, what is cancelled is known soon after."""
        task = asyncio.create_task(self._follow(connection, reader), name="cancels")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, connection: Connection, reader: StreamReader | None) -> None:
        """Until it is cancelled or the connection is lost."""
        while not connection.is_closed:
            try:
                reader = reader or await self.catch_up(connection)
                while True:
                    self._note(await reader.read(1000))
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
        """Read up to a marker; False when the messages do not go on from the last one."""
        last = self._last
        marker = f"marker {uuid4().hex}".encode()
        await self._markers.publish(marker, self._topology.cancels.name)
        while messages := await reader.read(1000, timeout=SILENCE):
            if last is not None:
                if (messages[0].offset, messages[0].body) != (last.offset, last.body):
                    return False
                last = None
            self._note(messages)
            if any(message.body == marker for message in messages):
                return True
        if last is None:
            raise BrokerUnavailable(f"the stream {self._topology.cancels.name} shows nothing for {SILENCE:g} s")
        return False

    def _note(self, messages: list[Recorded]) -> None:
        for message in messages:
            try:
                event = decode(message.body)
            except UnreadableEvent:  # a marker, ours or another worker's
                continue
            if isinstance(event, Cancelled) and not self.runs.has(event.subject, event.data.run):
                self.runs.add(event.subject, event.data.run, event.time)
                self._on_cancel(event.subject, event.data.run)
        self._last = messages[-1]
