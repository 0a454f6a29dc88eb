"""Publishes events: persistent, mandatory, confirmed, within a deadline.

After a nack, a time-out or a lost connection it is not known which queues have the message. So the same event (same
event id) is published again until a confirm comes or the deadline passes; readers drop repeats.

When a work queue refuses the message because a policy limits its length, the tape has the event in most cases. So only
the work is published again (``refused_work``), and ``check_room`` refuses more work for that queue beforehand.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import aiormq.exceptions

from jobtape.broker.channels import message_properties, publish_once
from jobtape.broker.confirmed_channel import ConfirmedChannel
from jobtape.broker.link import BROKER_ERRORS, Link, reason_of
from jobtape.broker.refused_work import RefusedWork, WorkRefused, WorkRoute, work_route
from jobtape.schemas.barrier import barrier_body
from jobtape.schemas.errors import BrokerUnavailable, QueueFull, TapeMissing
from jobtape.schemas.events import CONTENT_TYPE, JobEvent, encode
from jobtape.schemas.topology import BARRIER_KEY, Topology, event_key

PUBLISH_TIMEOUT = 10.0
MAX_IN_FLIGHT = 1000
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds before the next try."""
REFUSED_LIMIT = 2.0
"""Seconds that the caller waits for room in a full queue."""
REASON_HEADER: Final = "jobtape-reason"


class _QueueRefused(Exception):
    """The work queue has refused the message, and the tape has it."""


class Publisher:
    """Publishes to the events exchange over ``link``."""

    def __init__(self, link: Link, topology: Topology, *, timeout: float = PUBLISH_TIMEOUT) -> None:
        self.link = link
        self.topology = topology
        self.timeout = timeout
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._channel = ConfirmedChannel(link, topology.events.name, renew=True)
        self._refused = RefusedWork(link)

    async def close(self) -> None:
        """Give up work that full queues have refused, and close the connection."""
        await self._refused.close()
        await self.link.close()

    def check_room(self, cc: Sequence[str]) -> None:
        """Raise QueueFull when the queue that ``cc`` leads to has refused work that still waits."""
        route = self._route(cc)
        if route is not None and self._refused.is_full(route.queue):
            raise QueueFull(
                f"the queue {route.queue} is full and refuses more work: nothing was recorded. Try again when some of "
                "its jobs have run; `jobtape doctor` names the policy that limits it",
                recorded=False,
            )

    async def publish(self, event: JobEvent, cc: Sequence[str] = (), *, timeout: float | None = None) -> None:
        """Write ``event`` to the tape and to the queues that the keys ``cc`` lead to. Return when all have it.

        Raises BrokerUnavailable when no confirm came within ``timeout`` seconds (then it is not known whether the
        broker has it), TapeMissing when the tape does not exist, WorkRefused when the work queue did not take it within
        ``REFUSED_LIMIT``: then the tape has the event, and the work is placed once there is room.
        """
        await self.send(
            encode(event), event_key(event.name, event.data.job_type), cc, content_type=CONTENT_TYPE, timeout=timeout
        )

    async def publish_barrier(self, process: str, seq: int, timeout: float | None = None) -> None:
        """Write a barrier to the tape. A view that has passed it contains everything published before."""
        await self.send(barrier_body(process, seq), BARRIER_KEY, (), content_type="application/json", timeout=timeout)

    async def send(
        self, body: bytes, key: str, cc: Sequence[str], *, content_type: str, timeout: float | None = None
    ) -> None:
        """Same as ``publish``, for an encoded event or barrier."""
        limit = self.timeout if timeout is None else timeout
        route = self._route(cc)
        try:
            return await self._send(body, key, cc, content_type, limit, route)
        except _QueueRefused:
            assert route is not None
        record = partial(self._send, body, key, (), content_type, self.timeout, None)
        placing = self._refused.add(route, body, content_type, record)
        await asyncio.wait({placing}, timeout=min(limit, REFUSED_LIMIT))
        if not placing.done() or placing.cancelled():
            raise WorkRefused(
                f"the queue {route.queue} is full and refuses more work. The job is recorded, and may run when there "
                "is room: try again later, with the same Idempotency-Key if it must not become two jobs; `jobtape "
                "doctor` names the policy that limits the queue",
                placing,
            )

    def _route(self, cc: Sequence[str]) -> WorkRoute | None:
        return next((route for key in cc if (route := work_route(key, self.topology)) is not None), None)

    async def _send(
        self, body: bytes, key: str, cc: Sequence[str], content_type: str, limit: float, route: WorkRoute | None
    ) -> None:
        """Publish until it is confirmed. Raises as ``publish``, but _QueueRefused when there is a ``route``."""
        pause = FIRST_PAUSE
        trouble = "no confirm came"
        headers = {"CC": list(cc)} if cc else {}
        try:
            async with asyncio.timeout(limit), self._slots:
                while True:
                    try:
                        properties = message_properties(headers=headers, content_type=content_type)
                        return await self._channel.publish(body, key, properties, mandatory=True)
                    except aiormq.exceptions.PublishError:
                        raise TapeMissing(
                            f"the tape {self.topology.log.name} is not on the broker: nothing was recorded. "
                            "Start `jobtape projector` on a new installation, or run `jobtape init`"
                        ) from None
                    except aiormq.exceptions.DeliveryError:
                        if route is not None:
                            raise _QueueRefused from None
                        trouble = "a queue refused the message"
                    except BROKER_ERRORS as error:
                        trouble = reason_of(error)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
        except TimeoutError:
            raise BrokerUnavailable(
                f"not confirmed within {limit:g} s: {self.link.trouble or trouble}. It may or may not have been "
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
            trouble = self._channel.link.trouble or reason_of(error)
            raise BrokerUnavailable(
                f"not confirmed by the exchange {self._channel.exchange!r}: {trouble}; try again"
            ) from None


async def publish_dead_letter(link: Link, topology: Topology, body: bytes, reason: str) -> None:
    """Publish a message that no worker can handle to the dead exchange, with the reason. Raises one of
    ``BROKER_ERRORS``.

    The headers of the message are not copied: ``CC`` and ``x-death`` would route it again.
    """
    properties = message_properties(headers={REASON_HEADER: reason[:500]})
    await publish_once(link, body, exchange=topology.dead.name, key="no-job", properties=properties)
