"""Empties the dead queue: given-up work becomes an event of its job, any other message becomes a dead message.

The broker gives up a message after twenty deliveries that were returned. Three cases:

- The work waited in a worker that another job killed; its own handler had not started. It is placed again, a few times.
- The job's ``started`` event says that the job itself was running. Then its run has failed.
- A policy limits how long or how many messages may wait, and the broker dropped the work. That says nothing about the
  job, so its work is deferred, without a limit.

Each decision is an event whose id depends on the decision only. The message is acknowledged when the event is on the
tape; a message that is delivered again leads to the same event. The decision waits until the projector has folded
everything that was on the tape when the message was taken, so the view shows what happened before.
"""

import asyncio
import hashlib
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast, get_args

from jobtape.broker.publisher import REASON_HEADER
from jobtape.broker.queue_consumer import Delivery, QueueConsumer
from jobtape.broker.tasks import first_of, run_all
from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import Deferred, Dropped, Failed, Placed, WorkEvent, decode_work, placement_number
from jobtape.schemas.events.placement import deferral, failure, rescue
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.topology import Topology, queue_of
from jobtape.view.store import DeadMessage

log = logging.getLogger(__name__)

PREFETCH: Final = 1000
"""High, because a policy that lets messages expire also applies to messages that wait on the dead queue."""


class DeadLetters:
    """Consumes the dead queue."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active

    async def run(self) -> None:
        """Run until cancelled or until the channel ends. Raises NotActive, ViewUnavailable and BROKER_ERRORS."""
        taken: deque[Delivery] = deque()
        arrived = asyncio.Event()

        def take(delivery: Delivery) -> None:
            taken.append(delivery)
            arrived.set()

        queue = self._active.topology.dead_queue.name
        async with QueueConsumer(
            await self._active.link.connection(), [queue], prefetch=PREFETCH, deliver=take
        ) as consumer:
            while not consumer.ended.is_set():
                await first_of(arrived.wait(), consumer.ended)
                arrived.clear()
                await self._process([taken.popleft() for _ in range(len(taken))])

    async def _process(self, deliveries: Sequence[Delivery]) -> None:
        work: list[tuple[Delivery, WorkEvent]] = []
        dead: list[DeadMessage] = []
        for delivery in deliveries:
            reason = delivery.headers.get(REASON_HEADER)
            try:
                if reason is not None:
                    raise UnreadableEvent(str(reason))
                work.append((delivery, decode_work(delivery.body)))
            except UnreadableEvent as error:
                dead.append(_dead_message(delivery, str(error)))
        events = await self._decide_all(work, dead) if work else []
        for message in dead:
            log.error("a message is not work of a job, see `jobtape dead list`: %s", message.reason)
        await self._active.keep_dead(dead)
        await run_all(self._active.publish(event) for event in events)
        for delivery in deliveries:
            await delivery.ack()

    async def _decide_all(
        self, work: Sequence[tuple[Delivery, WorkEvent]], dead: list[DeadMessage]
    ) -> list[Placed | Deferred | Failed]:
        """Return the events that follow from ``work``, and add what cannot be placed to ``dead``."""
        await self._active.catch_up()
        jobs = await self._active.call(self._active.store.jobs, {event.subject for _, event in work})
        topology, fence = self._active.topology, self._active.cursor
        events: dict[str, Placed | Deferred | Failed] = {}
        drops: Counter[tuple[str, Dropped]] = Counter()
        for delivery, event in work:
            dropped = drop_reason(delivery.headers, topology)
            decision = decide(
                event, jobs.get(event.subject), topology.source, datetime.now(UTC), fence=fence, dropped=dropped
            )
            if isinstance(decision, str):
                dead.append(_dead_message(delivery, decision))
            elif decision is not None:
                events[decision.id] = decision
                if dropped is None:
                    log.warning(
                        "the broker gave up delivering the work of job %s: publishing the event %s",
                        event.subject,
                        decision.name,
                    )
                else:
                    drops[event.data.order.queue, dropped] += 1
        for (queue, dropped), n in drops.items():
            log.warning(
                "the broker has dropped the work of %d jobs from the queue %s (%s), as a policy says; it is placed "
                "again, see `jobtape doctor`",
                n,
                topology.work_queue(queue).name,
                dropped,
            )
        return list(events.values())


def drop_reason(headers: Mapping[str, Any], topology: Topology) -> Dropped | None:
    """Return why the broker dropped the work from its work queue; None when it gave up after many deliveries.

    ``x-death`` names each queue that the message has left in that way.
    """
    for death in headers.get("x-death") or ():
        queue, reason = str(death.get("queue", "")), death.get("reason")
        if queue == topology.work_queue(queue_of(queue)).name:
            return cast("Dropped", reason) if reason in get_args(Dropped) else None
    return None


def decide(
    event: WorkEvent, job: Job | None, source: str, now: datetime, *, fence: int, dropped: Dropped | None = None
) -> Placed | Deferred | Failed | str | None:
    """Decide what follows for ``job``, whose work ``event`` the broker has given up or ``dropped``.

    Returns an event, or None when the work is outdated, or the reason why it becomes a dead message.
    """
    if job is None or job.run < event.data.run:
        return (
            "given up by the broker, and the view does not know its job: is this the broker that the view belongs to?"
        )
    if job.final or job.run > event.data.run or event.data.attempt < job.attempt_due:
        return None
    if job.awaits_follow_ups:
        return None  # Its handler has ended, and only the ack was lost.
    if event.data.attempt == job.attempt_due and (placement_number(event) < job.placed or job.awaits_placement):
        return None  # It was placed again since, or will be.
    if dropped is not None:
        return deferral(event, dropped, source=source, time=now)
    if job.state is JobState.RUNNING and job.attempt == event.data.attempt:
        message = "the broker has given up delivering it: it started again and again, and each time its worker died"
        return failure(job, "crash_loop", message, source=source, time=now)
    event_after = rescue(job, "given_up", source=source, time=now, fence=fence)
    return event_after or "given up by the broker, and its order is not known"


def _dead_message(delivery: Delivery, reason: str) -> DeadMessage:
    body = delivery.body
    # Without an id the digest stands for it, so that a message that is delivered twice is kept once.
    name = delivery.message_id or hashlib.sha256(body).hexdigest()
    return DeadMessage(message_id=name, at=datetime.now(UTC), reason=reason, body=body, size=len(body))
