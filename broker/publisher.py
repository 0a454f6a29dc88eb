"""Publishes events: persistent, mandatory, confirmed, within a deadline.

After a nack, a timeout or a lost connection it is not known which queues have the message. So the same event (same
event id) is published again until a confirm comes or the deadline passes; readers drop repeats.

When a work queue refuses the message because a policy limits its length, the work is deferred: ``deferred`` is
published. If the message was a ``submitted``, it is then published once more to the tape alone, because the tape may
not have it. The projector places the work again. ``check_room`` refuses more work for that queue beforehand.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

import aiormq.exceptions

from jobtape.broker.channels import message_properties, publish_once
from jobtape.broker.confirmed_channel import ConfirmedChannel
from jobtape.broker.link import BROKER_ERRORS, Link, reason_of
from jobtape.process import clock
from jobtape.schemas.errors import BrokerUnavailable, QueueFull, TapeMissing
from jobtape.schemas.events import CONTENT_TYPE, Deferred, EncodedEvent, JobEvent, Submitted, WorkEvent, encode, encoded
from jobtape.schemas.events.placement import deferral
from jobtape.schemas.messages.barrier import barrier_body
from jobtape.schemas.topology import BARRIER_KEY, EVENT_KEY, Topology, work_key
from jobtape.telemetry.instruments import publish_confirm

log = logging.getLogger(__name__)

PUBLISH_TIMEOUT = 10.0
"""Seconds until a publish without a confirm raises BrokerUnavailable, by default."""
MAX_IN_FLIGHT = 1000
"""Messages that one publisher has published without a confirm at most."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds before the next try."""
SHORTEST_TIMEOUT: Final = 1.0
"""Seconds that each further publish gets when the first one took nearly all of the time."""
FULL_PAUSE: Final = 1.0
"""Seconds for which a queue that has refused work counts as full."""
REASON_HEADER: Final = "jobtape-reason"


class WorkRefused(Exception):
    """The work queue is full and has refused the message."""


class Publisher:
    """Publishes to the events exchange over ``link``."""

    def __init__(self, link: Link, topology: Topology, *, timeout: float = PUBLISH_TIMEOUT) -> None:
        self.link = link
        self.topology = topology
        self.timeout = timeout
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._channel = ConfirmedChannel(link, topology.events.name, renew=True)
        self._full: dict[str, float] = {}

    async def close(self) -> None:
        """Close the connection."""
        await self.link.close()

    def check_room(self, queue: str) -> None:
        """Raise QueueFull when the work queue has just refused work."""
        if (until := self._full.get(queue)) is None:
            return
        if time.monotonic() < until:
            raise QueueFull(
                f"the queue {self.topology.work_queue(queue).name} is full and refuses more work: nothing was "
                "recorded. Try again when some of its jobs have run; `jobtape doctor` names the policy that limits it"
            )
        del self._full[queue]

    async def place(self, event: WorkEvent, *, timeout: float | None = None) -> Deferred | None:
        """Write ``event`` to the tape and its work to its queue. Return when both have it.

        Returns the event that defers the work if its queue refused it. Raises what
        ``publish`` raises.
        """
        queue = event.data.order.queue
        body = encode(event)
        limit = self.timeout if timeout is None else timeout
        end = time.monotonic() + limit
        try:
            await self.send(body, EVENT_KEY, (work_key(queue),), timeout=limit, refusable=True)
        except WorkRefused:
            self._note_full(queue)
            deferred = deferral(event, "queue_full", source=self.topology.source, time=clock.now())
            # First: if this process died after a ``submitted`` alone, the job would seem to be on its queue.
            await self.publish(deferred, timeout=max(SHORTEST_TIMEOUT, end - time.monotonic()))
            if isinstance(event, Submitted):
                limit = max(SHORTEST_TIMEOUT, end - time.monotonic())
                await self.send(body, EVENT_KEY, (), timeout=limit)
            return deferred
        return None

    def note_refusal(self, queue: str, error: BaseException | None) -> None:
        """Note that ``queue`` is full, if the ``error`` of a publish of work that ``begin`` started says so."""
        if isinstance(error, aiormq.exceptions.DeliveryError):
            self._note_full(queue)

    def _note_full(self, queue: str) -> None:
        if queue not in self._full:
            log.warning(
                "the queue %s is full and refuses work: `jobtape doctor` names the policy that limits it",
                self.topology.work_queue(queue).name,
            )
        self._full[queue] = time.monotonic() + FULL_PAUSE

    async def publish(self, event: JobEvent, cc: Sequence[str] = (), *, timeout: float | None = None) -> None:
        """Write ``event`` to the tape, and to the queues that the keys ``cc`` lead to. Return when all have it.

        Raises BrokerUnavailable when no confirm came within ``timeout`` seconds (then it is not known whether the
        broker has it), and TapeMissing when the tape does not exist. For work, ``place`` is the call.
        """
        await self.publish_encoded(encoded(event), cc, timeout=timeout)

    async def publish_encoded(
        self, event: EncodedEvent, cc: Sequence[str] = (), *, timeout: float | None = None
    ) -> None:
        """Same as ``publish``, for an encoded event."""
        await self.send(event.body, EVENT_KEY, cc, timeout=timeout)

    def begin(self, event: JobEvent, cc: Sequence[str] = ()) -> "asyncio.Future[None]":
        """Same as ``begin_encoded``, for an event."""
        return self.begin_encoded(encoded(event), cc)

    def begin_encoded(self, event: EncodedEvent, cc: Sequence[str] = ()) -> "asyncio.Future[None]":
        """Publish ``event`` once, and return a future that ends when the tape and the queues have it.

        Without a deadline and another try: the future raises one of ``BROKER_ERRORS`` when the outcome is unknown or a
        queue refused the message.
        """
        properties = message_properties(headers={"CC": list(cc)} if cc else None, content_type=CONTENT_TYPE)
        return self._channel.publish(event.body, EVENT_KEY, properties, mandatory=True)

    async def publish_barrier(self, process: str, seq: int, timeout: float | None = None) -> None:
        """Write a barrier to the tape. A view that has passed it contains everything published before."""
        await self.send(barrier_body(process, seq), BARRIER_KEY, (), content_type="application/json", timeout=timeout)

    async def send(
        self,
        body: bytes,
        key: str,
        cc: Sequence[str],
        *,
        content_type: str = CONTENT_TYPE,
        timeout: float | None = None,
        refusable: bool = False,
    ) -> None:
        """Same as ``publish``, for an encoded event or barrier. ``refusable``: raise WorkRefused when a queue
        refused the message, instead of trying again.
        """
        limit = self.timeout if timeout is None else timeout
        began = time.monotonic()
        pause = FIRST_PAUSE
        fault = "no confirm came"
        headers = {"CC": list(cc)} if cc else {}
        try:
            async with asyncio.timeout(limit), self._slots:
                while True:
                    try:
                        properties = message_properties(headers=headers, content_type=content_type)
                        await self._channel.publish(body, key, properties, mandatory=True)
                        return publish_confirm.observe(time.monotonic() - began)
                    except aiormq.exceptions.PublishError:
                        raise TapeMissing(
                            f"the tape {self.topology.log.name} is not on the broker: nothing was recorded. "
                            "Start `jobtape projector` on a new installation, or run `jobtape init`"
                        ) from None
                    except aiormq.exceptions.DeliveryError:
                        if refusable:
                            raise WorkRefused from None
                        fault = "a queue refused the message"
                    except BROKER_ERRORS as error:
                        fault = reason_of(error)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
        except TimeoutError:
            raise BrokerUnavailable(
                f"not confirmed within {limit:g} s: {self.link.fault or fault}. It may or may not have been "
                "recorded: try again, and see /health/ready"
            ) from None


class ExchangePublisher:
    """Publishes to one exchange other than the events exchange over ``link`` (``""`` is the default exchange)."""

    def __init__(self, link: Link, exchange: str) -> None:
        self._channel = ConfirmedChannel(link, exchange, renew=True)

    async def publish(
        self, body: bytes, key: str, *, headers: Mapping[str, str | int] | None = None, content_type: str | None = None
    ) -> None:
        """Publish, and return when every queue that the message was routed to has it.

        Raises BrokerUnavailable when no confirm came within 10 s or no queue is bound: then it is not known whether a
        queue has it.
        """
        properties = message_properties(headers=headers, content_type=content_type)
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                await self._channel.publish(body, key, properties, mandatory=True)
        except BROKER_ERRORS as error:
            fault = self._channel.link.fault or reason_of(error)
            raise BrokerUnavailable(
                f"not confirmed by the exchange {self._channel.exchange!r}: {fault}; try again"
            ) from None


async def publish_dead_letter(link: Link, topology: Topology, body: bytes, reason: str) -> None:
    """Publish a message that no worker can handle to the dead exchange, with the reason. Raises one of
    ``BROKER_ERRORS``.

    The headers of the message are not copied: ``CC`` and ``x-death`` would route it again.
    """
    properties = message_properties(headers={REASON_HEADER: reason[:500]})
    await publish_once(link, body, exchange=topology.dead.name, key="no-job", properties=properties)
