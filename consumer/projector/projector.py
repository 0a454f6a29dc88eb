"""Keeps the view: reads the tape in order and folds it, exactly once.

Theory of operation. A lease in the database names the one active projector; others stand by and read nothing. The
active one attaches at the checkpoint, makes sure that the tape is the same (``attachment``), and from then on reads
what is there, folds it in memory and writes rows and checkpoint in one transaction whose first statement is a
compare-and-set of owner and checkpoint. So a projector that was frozen past its lease writes nothing, and one that was
killed has written a batch whole or not at all.

Offsets step by one, except where a segment of the stream rolls. After any larger step nothing beyond it is folded:
the projector attaches again at the last message it folded. If that is still there unchanged, nothing behind it can
have been dropped before the step was seen (retention drops from the beginning), so the step was a harmless one;
otherwise retention has overtaken the reader, which is a gap. A gap is reported in the view, where readiness finds it,
until somebody accepts it or the tape is right again.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from jobtape.broker import declare
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.broker.publisher import Publisher
from jobtape.broker.stream_reader import PREFETCH, StreamReader, TapeMessage
from jobtape.broker.tasks import first_of, wait_for_stop
from jobtape.consumer.folding import fold_batch
from jobtape.consumer.projector.attachment import GapFound, attached
from jobtape.consumer.projector.maintenance.job_rescuer import LOST_AFTER
from jobtape.consumer.projector.services import LeaderServices
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError, TapeMissing, ViewUnavailable
from jobtape.schemas.events import RelayMode
from jobtape.schemas.topology import Topology
from jobtape.view.store import Batch, Checkpoint, Gap, Store
from jobtape.view.threads import DatabaseThreads

log = logging.getLogger(__name__)

LULL = 0.02
"""Seconds between two batches on a busy tape: what gathers meanwhile costs one transaction instead of many. After a
quiet moment the first message is folded at once."""
PAUSE = 0.5
"""Seconds until something that failed is tried again, and between two looks at a lease that is another's."""


class _LostLease(Exception):
    """Another projector is the active one, or the checkpoint moved under us."""


class Projector:
    """Folds the tape of ``topology`` into ``store`` while no other projector does, and runs the ``LeaderServices``.

    ``lease``: seconds that others wait for this projector after it died. ``rescue_after``: seconds until a job whose
    work disappeared is placed again. ``keep``: seconds that jobs stay in the view after they ended. ``relay``: which
    events are published to subscribers.
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
        keep: float = 0.0,
    ) -> None:
        self.owner = owner
        self._topology = topology
        self._store = store
        self._lease = lease
        self._trouble: str | None = "starting"
        self._failure: tuple[int, str] | None = None
        """The cursor behind which folding fails, and why."""
        self._link = Link(url, name=f"{topology.namespace} projector {owner}", setup=self._declare)
        self._publisher = Publisher(
            Link(url, name=f"{topology.namespace} projector {owner} (barriers)", setup=self._declare), topology
        )
        self._tending = LeaderServices(
            url, topology, store, owner=owner, link=self._link, rescue_after=rescue_after, relay=relay, keep=keep
        )
        self._thread = DatabaseThreads("projector")
        self._harmless_step: tuple[int, int] | None = None

    @property
    def trouble(self) -> str | None:
        """Why nothing is folded; None while it is, or while standing by."""
        if not self._link.up:
            return self._link.trouble
        return self._trouble if self._failure is None else self._failure[1]

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set. Faults of broker and database are waited out, never raised."""
        self._link.start()
        self._publisher.link.start()
        self._tending.connect()
        try:
            while not stop.is_set():
                try:
                    connection = await first_of(self._link.connection(), stop)
                    if connection is None:
                        break
                    await self._serve(connection, stop)
                except ViewUnavailable as error:
                    self._say(f"the view is away: {error}")
                except (BrokerUnavailable, TapeMissing, *BROKER_ERRORS) as error:
                    self._say(f"reading the tape was interrupted: {reason_of(error)}")
                except _LostLease:
                    log.info("another projector has taken over; standing by")
                except Exception as error:
                    # Ended, it would only be started again, and nobody would know why the view stands still.
                    trouble = _failure_of(error)
                    if trouble != self._trouble:
                        log.exception("folding failed; trying again")
                    self._trouble = trouble
                await wait_for_stop(stop, PAUSE)
        finally:
            with suppress(ViewUnavailable):
                await self._thread.call(self._store.release_lease, self.owner)
            await self._tending.close()
            await self._publisher.close()
            await self._link.close()
            self._thread.close()

    async def _declare(self, connection: Connection) -> None:
        await declare.declare(connection, self._topology)

    async def _serve(self, connection: Connection, stop: asyncio.Event) -> None:
        """Stand by until the lease is ours, then fold until something ends that."""
        await self._first_start(connection)
        try:
            await self._stand_by_or_lead(connection, stop)
        finally:
            await self._tending.end()

    async def _stand_by_or_lead(self, connection: Connection, stop: asyncio.Event) -> None:
        standing_by = False
        while not stop.is_set() and not connection.is_closed:
            checkpoint = await self._thread.call(self._store.take_lease, self.owner, self._lease)
            if checkpoint is None:
                if not standing_by:
                    log.info("another projector is active; standing by")
                standing_by = True
                self._failure = None
                self._say(None)
                await self._tending.end()
                await wait_for_stop(stop, min(PAUSE, self._lease / 4))
                continue
            standing_by = False
            try:
                await self._lead(connection, checkpoint, stop)
            except GapFound as found:
                await self._tending.end()
                await self._stay_in_gap(found.gap, stop)

    async def _first_start(self, connection: Connection) -> None:
        """Create the tables, and the tape if nothing was ever folded. Later a missing tape is a gap."""
        await self._thread.call(self._store.migrate)
        if await self._thread.call(self._store.checkpoint) is None:
            if not await declare.log_exists(connection, self._topology):
                await self._thread.call(self._store.expect_fresh_tape)
                if await declare.create_log(connection, self._topology):
                    log.info("created the tape %s", self._topology.log.name)
            await self._thread.call(self._store.create_checkpoint)

    async def _lead(self, connection: Connection, checkpoint: Checkpoint, stop: asyncio.Event) -> None:
        lost = asyncio.Event()
        renewing = asyncio.create_task(self._renew(lost), name="lease")
        try:
            await self._attach_and_fold(connection, checkpoint, stop, lost)
        finally:
            renewing.cancel()

    async def _attach_and_fold(
        self, connection: Connection, checkpoint: Checkpoint, stop: asyncio.Event, lost: asyncio.Event
    ) -> None:
        async with attached(connection, self._publisher, checkpoint) as reader:
            if checkpoint.gap is not None:
                log.warning("the gap has closed: %s", checkpoint.gap.detail)
                await self._thread.call(self._store.report_gap, self.owner, None)
            if self._failure is None or self._failure[0] != checkpoint.cursor:
                self._failure = None
                log.info("folding the tape %s from cursor %d", self._topology.log.name, checkpoint.cursor)
                self._say(None)
            self._tending.begin()
            await self._fold(reader, checkpoint, stop, lost)

    async def _fold(
        self, reader: StreamReader, checkpoint: Checkpoint, stop: asyncio.Event, lost: asyncio.Event
    ) -> None:
        epoch, offset = checkpoint.epoch, checkpoint.offset
        while True:
            messages = await first_of(reader.read(PREFETCH), stop, lost)
            if lost.is_set():
                raise _LostLease
            if messages is None:
                return
            contiguous = self._up_to_step(offset, messages)
            if contiguous:
                try:
                    batch = await self._thread.call(self._commit, epoch, offset, contiguous)
                except Exception as error:
                    await self._note(cursor_of(epoch, -1 if offset is None else offset), error)
                    raise
                if batch is None:
                    raise _LostLease
                self._goes_on()
                self._tending.folded(batch)
                offset = contiguous[-1].offset
                await wait_for_stop(stop, LULL)
            if len(contiguous) < len(messages):
                assert offset is not None
                beyond = messages[len(contiguous)].offset
                log.info("offset %d follows %d: making sure that nothing is missing", beyond, offset)
                self._harmless_step = (offset, beyond)
                return  # attach again, at ``offset``; a gap shows there

    async def _note(self, cursor: int, error: Exception) -> None:
        """Let readiness know why nothing is folded behind ``cursor``, as far as the database takes that."""
        trouble = _failure_of(error)
        if self._failure is None:
            log.warning("nothing is folded behind cursor %d: %s", cursor, trouble)
        self._failure = (cursor, trouble)
        with suppress(Exception):  # readiness sees the checkpoint stand still, or the lease run out
            await self._thread.call(self._store.note_fold_trouble, self.owner, trouble)

    def _goes_on(self) -> None:
        if self._failure is not None:
            log.info("folding goes on")
        self._failure = None
        self._say(None)

    def _up_to_step(self, offset: int | None, messages: Sequence[TapeMessage]) -> Sequence[TapeMessage]:
        """The messages before the first step of more than one that is not known to be harmless."""
        for index, message in enumerate(messages):
            step = offset is not None and message.offset != offset + 1
            if step and (offset, message.offset) != self._harmless_step:
                return messages[:index]
            offset = message.offset
        return messages

    def _commit(self, epoch: int, offset: int | None, messages: Sequence[TapeMessage]) -> Batch | None:
        batch = fold_batch(messages, epoch, self._store.jobs, self._store.retention.gone)
        if offset is None and messages[0].offset > 0:
            batch = replace(batch, horizon=cursor_of(epoch, messages[0].offset) - 1)
            log.warning(
                "the tape begins at offset %d: the view has nothing of what came before, see docs/how-to/replay.md",
                messages[0].offset,
            )
        return batch if self._store.commit(self.owner, (epoch, offset), batch, self._lease) else None

    async def _stay_in_gap(self, gap: Gap, stop: asyncio.Event) -> None:
        """Report it and hold the lease for a moment; the caller then looks at checkpoint and tape again."""
        self._harmless_step = None
        if self._trouble != gap.detail:
            log.error("%s: %s", gap.kind, gap.detail)
        self._say(gap.detail)
        if not await self._thread.call(self._store.report_gap, self.owner, gap):
            raise _LostLease
        await wait_for_stop(stop, PAUSE)

    async def _renew(self, lost: asyncio.Event) -> None:
        """Keep the lease while nothing happens on the tape; sets ``lost`` when it is another's."""
        away = False
        while True:
            await asyncio.sleep(self._lease / 4)
            try:
                if not await self._thread.call(self._store.renew_lease, self.owner, self._lease):
                    lost.set()
                    return
                if away:
                    self._say(None)
                away = False
            except ViewUnavailable as error:
                away = True
                self._say(f"the view is away: {error}")

    def _say(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble


def _failure_of(error: Exception) -> str:
    """Why a batch was not committed, in one line. Data of jobs stand in the further lines of what a driver says."""
    if isinstance(error, JobtapeError):
        return str(error)
    said = str(error).strip().partition("\n")[0][:300]
    return f"folding failed ({type(error).__name__}: {said}); it is tried again, the projector's log has the traceback"
