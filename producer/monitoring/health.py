"""Checks whether each part of the installation works, and says what to do when one does not.

Every answer comes within two seconds, whatever is unavailable: the state of the broker is known already, and database
and queues are asked with a time limit.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

from jobtape.broker.declare import Depth
from jobtape.producer.monitoring.lag import LagProbe
from jobtape.producer.service.barrier import Barrier, PublishBarrier
from jobtape.producer.service.broker_watch import BrokerWatch
from jobtape.producer.service.errors import TooBusy
from jobtape.producer.service.view_calls import ViewCalls
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError, ViewUnavailable
from jobtape.schemas.events import RelayMode
from jobtape.schemas.job_types.job_type import RESERVED_QUEUES
from jobtape.schemas.rules.rules import RulesInForce
from jobtape.view.store import Checkpoint, RelayState, Store

CHECK_TIMEOUT: Final = 1.5
"""Seconds that a check of the database may take."""
STANDS_STILL: Final = 8.0
"""Seconds without progress of the checkpoint, while the tape has more, after which the fold counts as failed. A change
of projectors takes less."""
RELAY_LATE: Final = 60.0
"""Seconds that the relay may be behind before there is a warning."""
OUTBOX_LATE: Final = 60.0
"""Seconds that a job may wait in the outbox before there is a warning."""
TIMERS_LATE: Final = 10.0
"""Seconds that due work may wait for its placement before there is a warning."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """``reason``: why it is not ready and what to do; None when it is."""

    ready: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Workers:
    """The consumers of one queue, and the jobs that are ``waiting`` for one; None when they are not known.

    No consumer is only a warning, because submissions wait safely.
    """

    consumers: int | None
    waiting: int | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetterStatus:
    """``messages``: how many wait on the queue ``dead``; None when it is not known."""

    messages: int | None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class TimerStatus:
    """``behind``: seconds for which the earliest delayed job or retry has been due without being placed on its queue.
    None when it is not known.
    """

    behind: float | None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """``mode``: which events the relay publishes; None when it is off or not known. ``behind`` is in seconds. Jobs run
    and can be read without the relay.
    """

    mode: RelayMode | None = None
    behind: float | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """``waiting``: how many jobs wait in the outbox. ``oldest``: for how many seconds the first one has waited.
    ``refused``: how many of them cannot be published. None when it is not known or nothing waits.
    """

    waiting: int | None = None
    oldest: float | None = None
    refused: int | None = None
    warning: str | None = None


class OutboxState(Protocol):
    """What an outbox says of itself."""

    @property
    def depth(self) -> int:
        """How many jobs wait."""

    @property
    def oldest(self) -> float | None:
        """For how many seconds the first one has waited; None when there is none."""

    @property
    def refused(self) -> int:
        """How many of them cannot be published."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """``parts``: broker, tape, view, projector. All else is for information: ``workers`` by queue, ``timers``,
    ``dead_letters``, ``relay``, ``outbox`` (None where this process forwards none), and ``lag``: the seconds that an
    event published now takes to reach the view, None when it is not known.
    """

    parts: dict[str, PartStatus]
    workers: dict[str, Workers]
    timers: TimerStatus
    dead_letters: DeadLetterStatus
    relay: RelayStatus
    lag: float | None
    outbox: OutboxStatus | None = None

    @property
    def ready(self) -> bool:
        """Whether all parts are."""
        return all(part.ready for part in self.parts.values())


class Health:
    """Checks the parts in threads of its own, so that slow reads of jobs do not delay a check.

    ``publish_barrier``: see ``Barrier``.
    """

    def __init__(self, watch: BrokerWatch, store: Store, publish_barrier: PublishBarrier) -> None:
        self.watch = watch
        self.store = store
        self._reads = ViewCalls("jobtape-health", threads=2, limit=CHECK_TIMEOUT)
        self.read = self._reads.call
        self._lag = LagProbe(Barrier("lag", publish_barrier, partial(self.read, store.passed_barrier)))
        self.outbox: Callable[[], Awaitable[OutboxState]] | None = None
        """Reads the state of the outbox that this process forwards; raises JobtapeError."""
        self._standing = (-1, 0.0)
        """The checkpoint's cursor, and since when it has been seen there (monotonic seconds)."""

    async def close(self) -> None:
        """Stop measuring, and end the threads."""
        await self._lag.close()
        await self._reads.close()

    async def seconds_behind(self) -> float | None:
        """See ``LagProbe.seconds``. None also while there is no tape: a barrier would measure the broker's outage."""
        return None if self.watch.tape_fault is not None else await self._lag.seconds()

    async def readiness(self) -> Readiness:
        """Return the state of every part, in less than two seconds."""
        outbox = asyncio.ensure_future(self._outbox_status())
        return Readiness(
            *await asyncio.gather(
                self.parts(),
                self._workers(),
                self._timers(),
                self._dead_letters(),
                self._relay_status(),
                self.seconds_behind(),
            ),
            await outbox,
        )

    async def parts(self) -> dict[str, PartStatus]:
        """Return the state of the parts, without the queues."""
        view, projector = await self._view_parts()
        return {
            "broker": _part(self.watch.broker_fault),
            "tape": _part(self.watch.tape_fault),
            "view": view,
            "projector": projector,
        }

    async def _view_parts(self) -> tuple[PartStatus, PartStatus]:
        behind, view = await asyncio.gather(self.seconds_behind(), self._view(), return_exceptions=True)
        if isinstance(view, ViewUnavailable | TooBusy):
            self._standing = (-1, 0.0)
            return PartStatus(False, str(view)), PartStatus(False, "not known while the view does not answer")
        if isinstance(view, BaseException):
            raise view
        checkpoint, noted = view
        fault = _projector_fault(checkpoint)
        if checkpoint is not None and checkpoint.gap is None:
            late = behind if isinstance(behind, float) else None
            # A projector that fails repeatedly may lose its lease in between: the error that it recorded says more.
            folding = self._fold_fault(checkpoint.cursor, noted, late)
            fault = folding if noted is not None else fault or folding
        return PartStatus(True), _part(fault)

    async def _view(self) -> tuple[Checkpoint | None, str | None]:
        return await asyncio.gather(self.read(self.store.checkpoint), self.read(self.store.fold_fault))

    def _fold_fault(self, cursor: int, noted: str | None, behind: float | None) -> str | None:
        """Return why the fold does not continue: the recorded error, or no progress while the tape has more."""
        now = time.monotonic()
        if cursor != self._standing[0]:
            self._standing = (cursor, now)
        if noted is not None:
            return f"nothing is folded after cursor {cursor}: {noted}"
        if behind is not None and min(behind, now - self._standing[1]) >= STANDS_STILL:
            return (
                f"nothing has been folded after cursor {cursor} for {behind:.0f} s, though the tape has newer events: "
                "see the projector's log"
            )
        return None

    async def _workers(self) -> dict[str, Workers]:
        try:
            # At the same time: one after the other they might take longer than an answer may.
            depths, paused = await asyncio.gather(self.watch.depths(), self._paused_queues())
        except BrokerUnavailable as error:
            return {queue: Workers(None, warning=f"not known: {error}") for queue in self.watch.topology.queues}
        return {queue: _workers_of(queue, depth, paused) for queue, depth in depths.items()}

    async def _paused_queues(self) -> frozenset[str]:
        try:
            return RulesInForce.of(await self.read(self.store.open_jobs.rules)).paused_queues
        except (ViewUnavailable, TooBusy):
            return frozenset()

    async def seconds_timers_behind(self) -> float:
        """Return for how many seconds the earliest delayed job or retry has been due without being placed on its queue.

        Raises ViewUnavailable.
        """
        earliest = await self.read(self.store.open_jobs.earliest_timed)
        return 0.0 if earliest is None else max(0.0, (datetime.now(UTC) - earliest).total_seconds())

    async def _timers(self) -> TimerStatus:
        try:
            behind = await self.seconds_timers_behind()
        except (ViewUnavailable, TooBusy) as error:
            return TimerStatus(None, f"not known: {error}")
        late = (
            f"delayed jobs and retries are {behind:.0f} s late: see that the projector runs, and that their queues "
            "exist and are not full (`jobtape doctor`)"
        )
        return TimerStatus(behind, late if behind > TIMERS_LATE else None)

    async def _dead_letters(self) -> DeadLetterStatus:
        try:
            depth = await self.watch.dead_letters()
        except BrokerUnavailable as error:
            return DeadLetterStatus(None, f"not known: {error}")
        if depth is None:
            return DeadLetterStatus(None, "the queue is missing on the broker: run `jobtape init`")
        waiting = "1 message waits" if depth.messages == 1 else f"{depth.messages} messages wait"
        meaning = f"{waiting} for the projector: if that stays so, check that it runs"
        return DeadLetterStatus(depth.messages, meaning if depth.messages else None)

    async def outbox_state(self) -> OutboxState | None:
        """Return the state of the outbox, None where this process forwards none. Raises JobtapeError."""
        if self.outbox is None:
            return None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                return await self.outbox()
        except TimeoutError:
            raise JobtapeError(
                f"the database of the outbox did not answer within {CHECK_TIMEOUT:g} s: is it busy or away?"
            ) from None

    async def _outbox_status(self) -> OutboxStatus | None:
        try:
            state = await self.outbox_state()
        except JobtapeError as error:
            return OutboxStatus(warning=f"not known: {error}")
        if state is None:
            return None
        warning = None
        if state.refused:
            warning = f"{state.refused} jobs cannot be published: `jobtape outbox --list` shows why"
        elif state.oldest is not None and state.oldest > OUTBOX_LATE:
            warning = f"the first one has waited for {state.oldest:.0f} s: see that the broker answers"
        return OutboxStatus(state.depth, state.oldest, state.refused, warning)

    async def _relay_status(self) -> RelayStatus:
        try:
            state = await self.read(self.store.relay.state)
        except (ViewUnavailable, TooBusy) as error:
            return RelayStatus(warning=f"not known: {error}")
        return RelayStatus() if state is None else RelayStatus(state.mode, state.behind, relay_fault(state))


def relay_fault(state: RelayState) -> str | None:
    """Return a warning about the relay, None when there is none."""
    if state.fault is None and state.behind > RELAY_LATE:
        return (
            f"subscribers get events {state.behind:.0f} s late: see that the projector runs, and whether a queue "
            "bound to the results is slow to confirm"
        )
    return state.fault


def _part(fault: str | None) -> PartStatus:
    return PartStatus(fault is None, fault)


def _projector_fault(checkpoint: Checkpoint | None) -> str | None:
    if checkpoint is None:
        return "no projector has been started on this database yet: start `jobtape projector`"
    if checkpoint.gap is not None:
        return f"{checkpoint.gap.kind}: {checkpoint.gap.detail}"
    if checkpoint.lease_left <= 0:
        return "no projector is active: start `jobtape projector`. If one has been started, its log says why it is not"
    return None


def _servant(queue: str) -> str:
    """Return what serves a queue: the built-in jobs run beside the projectors."""
    return "`jobtape projector`, which serves it" if queue in RESERVED_QUEUES else f"`jobtape worker --queues {queue}`"


def _workers_of(queue: str, depth: Depth | None, paused: frozenset[str]) -> Workers:
    if depth is None:
        return Workers(
            0,
            warning="the queue is missing on the broker: start a worker that serves it, or run `jobtape init`",
        )
    if depth.consumers == 0 and queue in paused:
        warning = f"it is paused ({depth.messages} waiting): `jobtape resume --queue {queue}` lets its jobs begin"
        return Workers(0, depth.messages, warning)
    if depth.consumers == 0:
        warning = f"no worker takes jobs from it ({depth.messages} waiting): start {_servant(queue)}"
        return Workers(0, depth.messages, warning)
    return Workers(depth.consumers, depth.messages)
