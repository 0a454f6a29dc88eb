"""Checks the broker: whether it answers, whether the tape exists, and how many messages the queues have.

A heartbeat notices a connection without an answer only after half a minute. So this declares the tape passively every
two seconds, with a time limit, which shows whether the broker answers and whether the tape exists. Callers get the last
result at once.
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from jobtape.broker import declare
from jobtape.broker.declare import Depth
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.broker.tasks import cancel_and_wait, ignore_error
from jobtape.producer.service.shared import Shared
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing
from jobtape.schemas.topology import Topology

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``. Raises TimeoutError after ``seconds``, and ConnectionError.

    ``asyncio.timeout`` would wait for the clean-up of what it cancels. Closing a channel over a connection that does
    not answer takes until the heartbeat notices.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.add_done_callback(ignore_error)
            task.cancel()
    if not done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if task.cancelled():  # by aiormq, which cancels what waits for an answer when the connection ends
        raise ConnectionError("the connection was lost")
    return task.result()


log = logging.getLogger(__name__)

INTERVAL: Final = 2.0
ANSWER_TIMEOUT: Final = 2.0
DEPTH_TIMEOUT: Final = 1.0
"""Seconds for the depths of all queues."""
SHARED: Final = 1.0
"""Seconds for which an answer is shared by those who ask."""


class BrokerWatch:
    """The producer's link to the broker, and the state of the broker. ``name``: see ``Submitter``."""

    def __init__(self, url: str, topology: Topology, name: str = "api") -> None:
        self.topology = topology
        self.link = Link(url, name=f"{topology.namespace} {name}", setup=self._set_up)
        self._silent: str | None = None
        self._tape: bool | None = None
        self._task: asyncio.Task[None] | None = None
        self._looked_up = Shared(self._look_up, SHARED)

    def start(self) -> None:
        """Begin to connect and to check."""
        self.link.start()
        self._task = asyncio.create_task(self._check_forever(), name=f"{self.link.name} watch")

    async def close(self) -> None:
        """Stop checking, and end the connection."""
        if self._task is not None:
            await cancel_and_wait(self._task)
        await self._looked_up.close()
        await self.link.close()

    @property
    def broker_fault(self) -> str | None:
        """Why the broker cannot be used; None while it answers."""
        if self.link.up:
            return self._silent
        return self.link.fault or "the connection to the broker was lost just now"

    @property
    def tape_fault(self) -> str | None:
        """Why the tape cannot be written to; None while it is known to be there."""
        if self.broker_fault is not None:
            return "not known while the broker does not answer"
        return self._missing() if self._tape is False else None

    def require_tape(self) -> None:
        """Raise TapeMissing while the tape is known to be missing.

        The broker would not refuse the publish: a submission's second routing key leads to its work queue, so it would
        be confirmed, and run, without being recorded.
        """
        if self._tape is False:
            raise TapeMissing(self._missing())

    def tape_is_missing(self) -> None:
        """Record that a publish found no tape."""
        self._tape = False

    async def depths(self) -> dict[str, Depth | None]:
        """Return the depth of each work queue, None for one that is missing, as it was at most SHARED seconds ago.

        Raises BrokerUnavailable.
        """
        found = await self._depths()
        return {queue: found[self.topology.work_queue(queue).name] for queue in self.topology.queues}

    async def dead_letters(self) -> Depth | None:
        """Same as ``depths``, for the queue for dead messages."""
        return (await self._depths())[self.topology.dead_queue.name]

    async def _depths(self) -> dict[str, Depth | None]:
        """Return the depths by the names of the queues.

        Many dashboards and probes ask every few seconds. They share one look-up, so that the broker is not asked for
        each queue by each of them.
        """
        if (fault := self.broker_fault) is not None:
            raise BrokerUnavailable(fault)
        try:
            return await self._looked_up()
        except BROKER_ERRORS as error:
            raise BrokerUnavailable(
                f"the broker does not say how full its queues are ({reason_of(error)}): if that stays so, "
                "see how busy it is"
            ) from None

    async def _look_up(self) -> dict[str, Depth | None]:
        topology = self.topology
        names = [*(topology.work_queue(queue).name for queue in topology.queues), topology.dead_queue.name]

        async def depths() -> dict[str, Depth | None]:
            connection = await self.link.connection()
            return {name: await declare.depth(connection, name) for name in names}

        return await within(DEPTH_TIMEOUT, depths())

    async def _set_up(self, connection: Connection) -> None:
        await declare.declare(connection, self.topology)
        self._tape = await declare.log_exists(connection, self.topology)
        self._silent = None

    async def _check_forever(self) -> None:
        slow = False
        while True:
            await asyncio.sleep(INTERVAL)
            if not self.link.up:
                continue
            connection = await self.link.connection()
            check = asyncio.create_task(self._check(connection), name=f"{self.link.name} check")
            done, _ = await asyncio.wait({check}, timeout=ANSWER_TIMEOUT)
            if not done:
                self._silent = (
                    f"the broker has not answered for {ANSWER_TIMEOUT:g} s: it is away, overloaded, or blocks us "
                    "because of a memory or disk alarm"
                )
                if not slow:  # during an election each answer may come, but late
                    log.warning("%s: %s", self.link.name, self._silent)
                slow = True
                await asyncio.wait({check})  # until the answer, or the end of the connection
            elif slow and self._silent is None:
                slow = False
                log.info("%s: the broker answers in time again", self.link.name)
            with suppress(asyncio.CancelledError):  # by aiormq, when the connection went
                check.result()

    async def _check(self, connection: Connection) -> None:
        try:
            exists = await declare.log_exists(connection, self.topology)
            cancels = await declare.depth(connection, self.topology.cancels.name)
            if (exists and self._tape is False) or cancels is None:
                # The rest may have been removed together with the tape. Without the stream of cancellations, a
                # cancellation is confirmed and no worker gets it.
                await declare.declare(connection, self.topology)
            self._tape = exists
            self._silent = None
        except Exception as error:  # noqa: BLE001 - aiormq raises a bare one when the connection ends
            if not connection.is_closed:  # otherwise the link has noticed, and may have a new one by now
                self._silent = f"a check of the broker failed: {reason_of(error)}"

    def _missing(self) -> str:
        return (
            f"the tape {self.topology.log.name} is not on the broker, and nothing is accepted without it. "
            "Start `jobtape projector` on a new installation; where there was a tape before, run `jobtape init`"
        )
