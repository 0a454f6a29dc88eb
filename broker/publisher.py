"""Publishes events: persistent, mandatory, confirmed, within a deadline.

A nack, a time-out and a lost connection all mean *unknown*: some queue may have the message. So the same event (same
event id) is published again until a confirm comes or the deadline passes; whoever reads events drops repeats.

Where the queue of the work refuses it (a policy limits its length), the tape has the event by then, so only the work is
offered again (``refused``), and more work for that queue can be refused before anything is published (``check_room``).
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import uuid4

import aiormq.exceptions
from aiormq import spec

from jobtape.broker.confirmed_channel import PERSISTENT, ConfirmedChannel
from jobtape.broker.link import BROKER_ERRORS, Link, reason_of
from jobtape.broker.refused import RefusedWork, Way, WorkRefused, way_of
from jobtape.schemas.barrier import barrier_body
from jobtape.schemas.errors import BrokerUnavailable, QueueFull, TapeMissing
from jobtape.schemas.events import CONTENT_TYPE, JobEvent, encode
from jobtape.schemas.topology import BARRIER_KEY, Topology, event_key

PUBLISH_TIMEOUT = 10.0
MAX_IN_FLIGHT = 1000
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds until it is tried again."""
REFUSED_LIMIT = 2.0
"""Seconds that the caller waits for room in a full queue."""


class _QueueRefused(Exception):
    """The queue of the work has refused it, and the tape has the event."""


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
        """Give up work that full queues have refused, and end the connection."""
        await self._refused.close()
        await self.link.close()

    def check_room(self, cc: Sequence[str]) -> None:
        """Raises QueueFull, with nothing recorded, when work that a queue refused still waits where ``cc`` leads to."""
        way = self._way(cc)
        if way is not None and self._refused.is_full(way.queue):
            raise QueueFull(
                f"the queue {way.queue} is full and refuses more work: nothing was recorded. Try again when its jobs "
                "have been worked on; `jobtape doctor` names the policy that limits it",
                recorded=False,
            )

    async def publish(self, event: JobEvent, cc: Sequence[str] = (), *, timeout: float | None = None) -> None:
        """Write ``event`` to the tape and to the queues that the keys ``cc`` lead to; returns when all have it.

        Raises BrokerUnavailable when no confirm came within ``timeout`` seconds (then it is not known whether the
        broker has it), TapeMissing when the tape is not there, QueueFull when the queue of the work did not take it
        within ``REFUSED_LIMIT``: then the tape has the event, and the work is placed once there is room.
        """
        await self.send(
            encode(event), event_key(event.name, event.data.job_type), cc, content_type=CONTENT_TYPE, timeout=timeout
        )

    async def publish_barrier(self, process: str, seq: int, *, timeout: float | None = None) -> None:
        """Write a barrier to the tape: when the view has passed it, it has passed everything published before."""
        await self.send(barrier_body(process, seq), BARRIER_KEY, (), content_type="application/json", timeout=timeout)

    async def send(
        self, body: bytes, key: str, cc: Sequence[str], *, content_type: str, timeout: float | None = None
    ) -> None:
        """The same as ``publish`` for a body already made."""
        limit = self.timeout if timeout is None else timeout
        way = self._way(cc)
        try:
            return await self._send(body, key, cc, content_type, limit, way)
        except _QueueRefused:
            assert way is not None
        record = partial(self._send, body, key, (), content_type, self.timeout, None)
        placing = self._refused.add(way, body, content_type, record)
        await asyncio.wait({placing}, timeout=min(limit, REFUSED_LIMIT))
        if not placing.done() or placing.cancelled():
            raise WorkRefused(
                f"the queue {way.queue} is full and refuses more work. The job is recorded, and may be run when there "
                "is room: try again later, under the same Idempotency-Key if it must not become two jobs; `jobtape "
                "doctor` names the policy that limits the queue",
                placing,
            )

    def _way(self, cc: Sequence[str]) -> Way | None:
        return next((way for key in cc if (way := way_of(key, self.topology)) is not None), None)

    async def _send(
        self, body: bytes, key: str, cc: Sequence[str], content_type: str, limit: float, way: Way | None
    ) -> None:
        """Publish until it is confirmed. Raises as ``publish``, but _QueueRefused where there is a ``way``."""
        pause = FIRST_PAUSE
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
                        raise TapeMissing(
                            f"the tape {self.topology.log.name} is not on the broker: nothing was recorded. "
                            "Start `jobtape projector` on a new installation, or run `jobtape init`"
                        ) from None
                    except aiormq.exceptions.DeliveryError:
                        if way is not None:
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
