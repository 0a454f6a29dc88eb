"""Publishes events: persistent, mandatory, confirmed, within a deadline.

A nack, a time-out and a lost connection all mean *unknown*: some queue may have the message. So the same event (same
event id) is published again until a confirm comes or the deadline passes; whoever reads events drops repeats.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import aiormq.exceptions
from aiormq import spec

from jobtape.broker.confirmed import PERSISTENT, ConfirmedChannel
from jobtape.broker.link import BROKER_ERRORS, Link, reason_of
from jobtape.schemas.barrier import barrier_body
from jobtape.schemas.errors import BrokerUnavailable, LogMissing
from jobtape.schemas.events import CONTENT_TYPE, JobEvent, encode
from jobtape.schemas.topology import BARRIER_KEY, Topology, event_key

PUBLISH_TIMEOUT = 10.0
MAX_IN_FLIGHT = 1000
RETRY_PAUSE = 0.1


class Publisher:
    """Publishes to the events exchange over ``link``."""

    def __init__(self, link: Link, topology: Topology, *, timeout: float = PUBLISH_TIMEOUT) -> None:
        self.link = link
        self.topology = topology
        self.timeout = timeout
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._channel = ConfirmedChannel(link, topology.events.name)

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
        headers: Any = {"CC": list(cc)} if cc else {}  # aiormq's type knows no list, the wire does
        try:
            async with asyncio.timeout(limit), self._slots:
                while True:
                    try:
                        # aiormq matches a returned message by its id, so each publish has its own
                        properties = spec.Basic.Properties(
                            content_type=content_type, delivery_mode=PERSISTENT, message_id=uuid4().hex, headers=headers
                        )
                        await self._channel.publish(body, key, properties, mandatory=True)
                        return
                    except aiormq.exceptions.PublishError:
                        raise LogMissing(
                            f"the tape {self.topology.log.name} is not on the broker: nothing was recorded. "
                            "Start `jobtape projector` on a new installation, or run `jobtape init`"
                        ) from None
                    except aiormq.exceptions.DeliveryError:
                        trouble = "a queue refused the message"
                    except BROKER_ERRORS as error:
                        trouble = reason_of(error)
                    await asyncio.sleep(RETRY_PAUSE)
        except TimeoutError:
            raise BrokerUnavailable(
                f"not confirmed within {limit:g} s: {self.link.trouble or trouble}. It may or may not have been "
                "recorded: try again, and see /health/ready"
            ) from None
