"""Folds the tape into the view, in order and exactly once.

Theory of operation. A lease in the database names the active projector. The others stand by and read nothing. The
active projector attaches to the tape at the checkpoint, checks that it is the same tape (``attachment``), reads
messages, folds them in memory, and writes rows and checkpoint in one transaction. The first statement of that
transaction is a compare-and-set of owner and checkpoint. So a projector that was frozen for longer than its lease
writes nothing, and one that was killed has written each batch completely or not at all.

Offsets increase by one, except where RabbitMQ begins a new segment of the stream. After a larger step the projector
folds nothing further: it attaches again at the last message that it folded. If that message is still there, retention
(which drops from the beginning) cannot have dropped anything behind it before the step was seen, so the step was
harmless. Otherwise messages are lost, which is a gap. The gap is written to the view, where readiness finds it, until
an operator accepts it or the right tape is back.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from jobtape.broker import declare
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.broker.publisher import Publisher
from jobtape.broker.stream_reader import PREFETCH, StreamReader, TapeMessage
from jobtape.broker.tasks import first_of, wait_for_stop
from jobtape.consumer.folding import fold_batch
from jobtape.consumer.projector.attachment import GapFound, attach
from jobtape.consumer.projector.maintenance.job_rescuer import LOST_AFTER
from jobtape.consumer.projector.recent_jobs import RecentJobs
from jobtape.consumer.projector.services import ProjectorServices
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError, TapeMissing, ViewUnavailable
from jobtape.schemas.events import RelayMode, Submitted
from jobtape.schemas.topology import Topology
from jobtape.view.store import Checkpoint, FoldedBatch, Gap, Store
from jobtape.view.threads import DatabaseThreads

log = logging.getLogger(__name__)

RETRY_PAUSE = 0.5
"""Seconds until a failed action is tried again, and at most between two attempts to take the lease."""
LINGER: Final = 0.01
"""Seconds for which a few submissions whose work is on its queue wait for what comes next: see ``gathered``. It is
longer than the outcome of a short job takes on a slow machine (decision 79)."""
MOST_LINGERING: Final = 10
"""Submissions; with more, the next batch comes while they are committed."""
_SUBMITTED: Final = f'"{Submitted.model_fields["type"].default}"'.encode()
_NOT_RUNNING: Final = (b'"run_at":', b'"gates":', b'"flow":', b'"imported":')
"""In events of jobs whose submission places no work, and in those of flows."""


class _LeaseLost(Exception):
    """Another projector is active, or the checkpoint is not the one that this projector wrote."""


class Projector:
    """Folds the tape of ``topology`` into ``store`` while it has the lease, and runs the ``ProjectorServices``
    meanwhile.

    ``lease``: seconds after the death of this projector until another one takes over. ``rescue_after``: seconds until
    a job whose work disappeared is placed again. ``job_retention``: seconds that jobs stay in the view after their end,
    0 forever. ``relay``: which events are published to subscribers. ``max_payload``: the bytes of a payload that
    is made for a job of a flow. ``maintenance``: see ``ProjectorServices``. ``linger``: seconds,
    see ``gathered``; 0 to fold all that comes at once.
    """

    def __init__(
        self,
        url: str,
        topology: Topology,
        store: Store,
        *,
        owner: str,
        lease: float,
        rescue_after: float = LOST_AFTER,
        relay: RelayMode = "final",
        job_retention: float = 0.0,
        max_payload: int = 2**20,
        maintenance: bool = True,
        linger: float = LINGER,
    ) -> None:
        self.owner = owner
        self._linger = linger
        self._topology = topology
        self._store = store
        self._lease = lease
        self._fault: str | None = "starting"
        self._failure: tuple[int, str] | None = None
        """The cursor after which folding fails, and why."""
        self._link = Link(url, name=f"{topology.namespace} projector {owner}", setup=self._declare)
        self._publisher = Publisher(
            Link(url, name=f"{topology.namespace} projector {owner} (barriers)", setup=self._declare), topology
        )
        self._services = ProjectorServices(
            topology,
            store,
            owner=owner,
            link=self._link,
            rescue_after=rescue_after,
            relay=relay,
            job_retention=job_retention,
            max_payload=max_payload,
            maintenance=maintenance,
        )
        self._thread = DatabaseThreads("projector")
        self._recent = RecentJobs()
        self._harmless_step: tuple[int, int] | None = None

    @property
    def fault(self) -> str | None:
        """Why nothing is folded; None while the projector folds or stands by."""
        if not self._link.up:
            return self._link.fault
        return self._fault if self._failure is None else self._failure[1]

    def next_at(self) -> float:
        """Return when there is something to do although nothing is folded until then: see ``ProjectorServices``."""
        return self._services.next_at()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set. After an error of broker or database it tries again, and never raises it."""
        self._link.start()
        self._publisher.link.start()
        try:
            while not stop.is_set():
                try:
                    connection = await first_of(self._link.connection(), stop)
                    if connection is None:
                        break
                    await self._serve(connection, stop)
                except ViewUnavailable as error:
                    self._set_fault(f"the database does not answer: {error}")
                except (BrokerUnavailable, TapeMissing, *BROKER_ERRORS) as error:
                    self._set_fault(f"reading the tape was interrupted: {reason_of(error)}")
                except _LeaseLost:
                    log.info("another projector has taken over; standing by")
                except Exception as error:
                    # Ending here would only cause a restart, and would not say why the view makes no progress.
                    fault = _fold_fault(error)
                    if fault != self._fault:
                        log.exception("folding failed; trying again")
                    self._fault = fault
                await wait_for_stop(stop, RETRY_PAUSE)
        finally:
            with suppress(ViewUnavailable):
                await self._thread.call(self._store.release_lease, self.owner)
            await self._services.close()
            await self._publisher.close()
            await self._link.close()
            self._thread.close()

    async def _declare(self, connection: Connection) -> None:
        await declare.declare(connection, self._topology)

    async def _serve(self, connection: Connection, stop: asyncio.Event) -> None:
        """Stand by until this projector gets the lease, then fold until it loses the lease or the connection."""
        await self._prepare(connection)
        standing_by = False
        try:
            while not stop.is_set() and not connection.is_closed:
                began = time.monotonic()
                checkpoint = await self._thread.call(self._store.take_lease, self.owner, self._lease)
                if checkpoint is None:
                    if not standing_by:
                        log.info("another projector is active; standing by")
                    standing_by = True
                    self._failure = None
                    self._set_fault(None)
                    await self._services.stop()
                    await wait_for_stop(stop, min(RETRY_PAUSE, self._lease / 4))
                    continue
                standing_by = False
                self._services.renewed(began + self._lease)
                try:
                    await self._lead(connection, checkpoint, stop)
                except GapFound as found:
                    await self._services.stop()
                    await self._report_gap(found.gap, stop)
        finally:
            await self._services.stop()

    async def _prepare(self, connection: Connection) -> None:
        """Create the tables, and the tape when nothing was folded yet. Later a missing tape is a gap."""
        await self._thread.call(self._store.migrate)
        if await self._thread.call(self._store.checkpoint) is None:
            if not await declare.log_exists(connection, self._topology):
                await self._thread.call(self._store.expect_fresh_tape)
                if await declare.create_log(connection, self._topology):
                    log.info("created the tape %s", self._topology.log.name)
            await self._thread.call(self._store.create_checkpoint)

    async def _lead(self, connection: Connection, checkpoint: Checkpoint, stop: asyncio.Event) -> None:
        lost = asyncio.Event()
        renewing = asyncio.create_task(self._renew_lease(lost), name="lease")
        interrupting: asyncio.Task[None] | None = None
        try:
            async with attach(connection, self._publisher, checkpoint) as reader:
                interrupting = asyncio.create_task(_interrupt(reader, stop, lost), name="interrupt")
                if checkpoint.gap is not None:
                    log.warning("the gap has closed: %s", checkpoint.gap.detail)
                    await self._thread.call(self._store.report_gap, self.owner, None)
                if self._failure is None or self._failure[0] != checkpoint.cursor:
                    self._failure = None
                    log.info("folding the tape %s from cursor %d", self._topology.log.name, checkpoint.cursor)
                    self._set_fault(None)
                self._services.start()
                await self._fold(reader, checkpoint, stop, lost)
        finally:
            renewing.cancel()
            if interrupting is not None:
                interrupting.cancel()

    async def _fold(
        self, reader: StreamReader, checkpoint: Checkpoint, stop: asyncio.Event, lost: asyncio.Event
    ) -> None:
        """Fold until ``stop`` is set or a step of the offsets has to be checked. Raises _LeaseLost.

        What arrives while a batch is committed is the next batch. So a batch is as large as the load, and without load
        only submissions wait (see ``gathered``).
        """
        epoch, offset = checkpoint.epoch, checkpoint.offset
        self._recent.clear()
        while True:
            messages = await gathered(reader, self._linger)
            if lost.is_set():
                raise _LeaseLost
            if stop.is_set() or not messages:
                return
            contiguous = self._before_step(offset, messages)
            if contiguous:
                began = time.monotonic()
                try:
                    batch = await self._thread.call(self._commit, epoch, offset, contiguous)
                except Exception as error:
                    await self._report_failure(cursor_of(epoch, -1 if offset is None else offset), error)
                    raise
                if batch is None:
                    raise _LeaseLost
                if self._failure is not None:
                    log.info("folding continues")
                    self._failure = None
                self._set_fault(None)
                self._services.renewed(began + self._lease)
                offset = contiguous[-1].offset
                self._services.notify(batch, cursor_of(epoch, offset))
            if len(contiguous) < len(messages):
                assert offset is not None
                next_offset = messages[len(contiguous)].offset
                log.info("offset %d follows %d: checking that no message is missing", next_offset, offset)
                self._harmless_step = (offset, next_offset)
                return  # The caller attaches again at ``offset``, and finds the gap if there is one.

    async def _report_failure(self, cursor: int, error: Exception) -> None:
        """Write to the view why nothing is folded after ``cursor``, if the database accepts it."""
        fault = _fold_fault(error)
        if self._failure is None:
            log.warning("nothing is folded after cursor %d: %s", cursor, fault)
        self._failure = (cursor, fault)
        # If this fails too, readiness notices that the checkpoint does not move, or that the lease has expired.
        with suppress(Exception):
            await self._thread.call(self._store.note_fold_fault, self.owner, fault)

    def _before_step(self, offset: int | None, messages: Sequence[TapeMessage]) -> Sequence[TapeMessage]:
        """Return the messages before the first step that is larger than one and not known to be harmless."""
        for index, message in enumerate(messages):
            step = offset is not None and message.offset != offset + 1
            if step and (offset, message.offset) != self._harmless_step:
                return messages[:index]
            offset = message.offset
        return messages

    def _commit(self, epoch: int, offset: int | None, messages: Sequence[TapeMessage]) -> FoldedBatch | None:
        """Fold and commit ``messages``, and return the batch; None when the lease or the checkpoint was lost."""
        horizon = 0
        if offset is None and messages[0].offset > 0:
            horizon = cursor_of(epoch, messages[0].offset) - 1
            log.warning(
                "the tape begins at offset %d: the view contains nothing from before, "
                'see "If the database is lost" in docs/how-to/replay.md',
                messages[0].offset,
            )
        recent = self._recent
        with self._store.folding() as session:
            while True:
                load = partial(recent.load, read=session.jobs)
                batch = replace(fold_batch(messages, epoch, load, session.gone, recent.new), horizon=horizon)
                if session.commit(self.owner, (epoch, offset), batch, self._lease):
                    break
                if not batch.new:
                    return None
                recent.refused()
        recent.add(batch)
        return batch

    async def _report_gap(self, gap: Gap, stop: asyncio.Event) -> None:
        """Write the gap to the view, and pause. The caller then reads checkpoint and tape again."""
        self._harmless_step = None
        if self._fault != gap.detail:
            log.error("%s: %s", gap.kind, gap.detail)
        self._set_fault(gap.detail)
        if not await self._thread.call(self._store.report_gap, self.owner, gap):
            raise _LeaseLost
        await wait_for_stop(stop, RETRY_PAUSE)

    async def _renew_lease(self, lost: asyncio.Event) -> None:
        """Renew the lease while the tape is quiet. Sets ``lost`` when another projector has it."""
        away = False
        while True:
            await asyncio.sleep(self._lease / 4)
            began = time.monotonic()
            try:
                if not await self._thread.call(self._store.renew_lease, self.owner, self._lease):
                    lost.set()
                    return
                self._services.renewed(began + self._lease)
                if away:
                    self._set_fault(None)
                away = False
            except ViewUnavailable as error:
                away = True
                self._set_fault(f"the database does not answer: {error}")

    def _set_fault(self, fault: str | None) -> None:
        if fault is not None and fault != self._fault:
            log.warning("%s", fault)
        self._fault = fault


async def gathered(reader: StreamReader, linger: float) -> list[TapeMessage]:
    """Wait for messages and return them, or an empty list after an interruption of ``reader``.

    The outcome of a short job comes a moment after its submission. If nothing but a few submissions has come, whose
    work is on its queue already, further messages are awaited for ``linger`` seconds. So both events are one commit,
    and the first commit does not delay the outcome. Any other message, such as a barrier, ends the wait.
    """
    messages = more = await reader.read(PREFETCH)
    clock = asyncio.get_running_loop().time
    end = clock() + linger
    while linger and more and len(messages) <= MOST_LINGERING and all(map(_is_running_submission, more)):
        more = await reader.read(PREFETCH, timeout=end - clock())
        messages = messages + more
    return messages


def _is_running_submission(message: TapeMessage) -> bool:
    """Return whether it is the submission of a job that runs at once. A payload with these words may mislead it: then
    it is folded a moment later or earlier, and nothing else changes.
    """
    body = message.body
    return _SUBMITTED in body and not any(word in body for word in _NOT_RUNNING)


async def _interrupt(reader: StreamReader, stop: asyncio.Event, lost: asyncio.Event) -> None:
    """Interrupt the reader when one of the events is set. Waiting for them around each read costs three tasks."""
    await first_of(stop.wait(), lost)
    reader.interrupt()


def _fold_fault(error: Exception) -> str:
    """Say in one line why a batch was not committed. Further lines of a driver's error may contain data of jobs."""
    if isinstance(error, JobtapeError):
        return str(error)
    line = str(error).strip().partition("\n")[0][:300]
    return f"folding failed ({type(error).__name__}: {line}); it is tried again, the projector's log has the traceback"
