"""Publishes events: persistent, mandatory, confirmed, within a deadline.

A nack, a time-out and a lost connection all mean *unknown*: some queue may have the message. So the same event (same
event id) is published again until a confirm comes or the deadline passes; whoever reads events drops repeats.
"""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import uuid4

import aiormq
import aiormq.exceptions
from aiormq import spec

from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.schemas.barrier import barrier_body
from jobtape.schemas.errors import BrokerUnavailable, LogMissing
from jobtape.schemas.events import CONTENT_TYPE, JobEvent, encode
from jobtape.schemas.topology import BARRIER_KEY, Topology, event_key

PUBLISH_TIMEOUT = 10.0
MAX_IN_FLIGHT = 1000
RETRY_PAUSE = 0.1
PERSISTENT = 2


class Publisher:
    """Publishes over ``link``. One channel, which publishes to the events exchange alone (before RabbitMQ 4.0 a
    stream's leader change confuses the confirms of a channel that also publishes elsewhere, rabbitmq-server#12236).
    """

    def __init__(self, link: Link, topology: Topology, *, timeout: float = PUBLISH_TIMEOUT) -> None:
        self.link = link
        self.topology = topology
        self.timeout = timeout
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._opening = asyncio.Lock()
        self._channel: aiormq.Channel | None = None
        self._connection: Connection | None = None
        self._waiting: set[asyncio.Timeout] = set()

    async def publish(self, event: JobEvent, cc: Sequence[str] = (), *, timeout: float | None = None) -> None:
        """Write ``event`` to the tape and to the queues that the keys ``cc`` lead to; returns when all have it.

        Raises BrokerUnavailable when no confirm came within ``timeout`` seconds (then it is not known whether the
        broker has it), LogMissing when the tape is not there.
        """
        await self.send(
            encode(event), event_key(event.name, event.data.job_type), cc, content_type=CONTENT_TYPE, timeout=timeout
        )

    async def publish_barrier(self, process: str, seq: int, *, timeout: float | None = None) -> None:
        """Write a barrier to the tape: when the view has passed it, it has passed everything published before."""
        await self.send(barrier_body(process, seq), BARRIER_KEY, (), content_type="application/json", timeout=timeout)

    async def send(
        self,
        body: bytes,
        key: str,
        cc: Sequence[str],
        *,
        content_type: str,
        timeout: float | None = None,
    ) -> None:
        """The same for a body already made."""
        limit = self.timeout if timeout is None else timeout
        trouble = "no confirm came"
        headers = {"CC": list(cc)} if cc else {}
        try:
            async with asyncio.timeout(limit), self._slots:
                while True:
                    try:
                        await self._attempt(body, key, content_type, headers)
                        return
                    except aiormq.exceptions.PublishError:
                        raise LogMissing(
                            f"the tape {self.topology.log.name} is not on the broker: nothing was recorded. "
                            "Start `jobtape projector` on a new installation, or run `jobtape init`"
                        ) from None
                    except aiormq.exceptions.DeliveryError:
                        trouble = "a queue refused the message"
                    except asyncio.CancelledError:
                        task = asyncio.current_task()
                        if task is None or task.cancelling():
                            raise
                        trouble = "the connection was lost before the confirm"
                    except BROKER_ERRORS as error:
                        trouble = reason_of(error)
                    await asyncio.sleep(RETRY_PAUSE)
        except TimeoutError:
            raise BrokerUnavailable(
                f"not confirmed within {limit:g} s: {self.link.trouble or trouble}. It may or may not have been "
                "recorded: try again, and see /health/ready"
            ) from None

    async def _attempt(self, body: bytes, key: str, content_type: str, headers: Mapping[str, object]) -> None:
        channel = await self._open_channel()
        waiting = self._waiting
        async with asyncio.timeout(None) as lost:
            waiting.add(lost)
            try:
                await channel.basic_publish(
                    body,
                    exchange=self.topology.events.name,
                    routing_key=key,
                    properties=spec.Basic.Properties(
                        content_type=content_type,
                        delivery_mode=PERSISTENT,
                        # aiormq matches a returned message by its id, so each publish has its own
                        message_id=uuid4().hex,
                        headers=headers,  # type: ignore[arg-type]  # its type knows no list, the wire does
                    ),
                    mandatory=True,
                    wait=False,
                )
            finally:
                waiting.discard(lost)

    async def _open_channel(self) -> aiormq.Channel:
        if self._channel is not None and not self._channel.is_closed and self.link.up:
            return self._channel
        async with self._opening:
            connection = await self.link.connection()
            if self._channel is None or self._channel.is_closed or self._connection is not connection:
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                under = await channel.get_underlay_channel()
                assert isinstance(under, aiormq.Channel)  # its wait=False is not in the abstract class
                waiting: set[asyncio.Timeout] = set()
                self._waiting = waiting
                under.closing.add_done_callback(lambda _: _wake(waiting))
                self._channel = under
                self._connection = connection
            return self._channel


def _wake(waiting: set[asyncio.Timeout]) -> None:
    # A publish that waits for room in aiormq's write queue is not woken when the connection goes: end them here.
    now = asyncio.get_running_loop().time()
    for attempt in tuple(waiting):
        if attempt.when() is None:
            attempt.reschedule(now)
