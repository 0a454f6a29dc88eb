"""Empties the dead queue: what the broker gave up delivering becomes a fact of its job, what is no job is kept aside.

A delivery is given up after twenty returns. Mostly it was beside a job that kills its worker, and was never begun: then
it is put back on its queue, a few times at most. Where the job's ``started`` says that it was itself at work, the run
has failed. Work that the broker dropped while it waited, because a policy limits how long or how many may wait, says
nothing about its job: it is put back however often. Each of these is an effect, and the message is acknowledged once
the effect is in the view; so one that is taken again comes to the same effect. It is judged by a view that has folded
everything that was on the tape when the message was taken, which is more than had happened when the broker gave it up.
"""

import asyncio
import hashlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast, get_args

from jobtape.broker.publisher import REASON_HEADER
from jobtape.broker.queue_consumer import Delivery, QueueConsumer
from jobtape.broker.tasks import first_of
from jobtape.consumer.folding import outbox_row
from jobtape.consumer.projector.maintenance.leader import Leader
from jobtape.schemas.effects import MAX_RESCUES, Effect, attempt_due, failure, rescue, rescue_dropped
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import Dropped, Requeued, Retrying, Submitted, WorkEvent, attempt_of, decode
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.topology import Topology, queue_of
from jobtape.view.store import DeadMessage, OutboxRow

log = logging.getLogger(__name__)

PREFETCH: Final = 1000
"""Many: under a policy that lets messages expire, what waits on the dead queue vanishes too."""


class DeadLetters:
    """``wake`` is called when there are new effects."""

    def __init__(self, leader: Leader, wake: Callable[[], None]) -> None:
        self._leader = leader
        self._wake = wake

    async def run(self) -> None:
        """Until it is cancelled, or the channel ends; raises what broker and view raise."""
        taken: deque[Delivery] = deque()
        news = asyncio.Event()

        def take(delivery: Delivery) -> None:
            taken.append(delivery)
            news.set()

        queue = self._leader.topology.dead_queue.name
        async with QueueConsumer(
            await self._leader.link.connection(), [queue], prefetch=PREFETCH, deliver=take
        ) as intake:
            while not intake.ended.is_set():
                await first_of(news.wait(), intake.ended)
                news.clear()
                batch = [taken.popleft() for _ in range(len(taken))]
                await self._settle(batch)

    async def _settle(self, batch: Sequence[Delivery]) -> None:
        given_up: list[tuple[Delivery, WorkEvent]] = []
        dead: list[DeadMessage] = []
        for delivery in batch:
            reason = delivery.headers.get(REASON_HEADER)
            try:
                if reason is not None:
                    raise UnreadableEvent(str(reason))
                given_up.append((delivery, _work(delivery.body)))
            except UnreadableEvent as error:
                dead.append(_dead(delivery, str(error)))
        effects: list[OutboxRow] = []
        if given_up:
            await self._leader.catch_up()
            jobs = await self._leader.call(self._leader.store.jobs, {event.subject for _, event in given_up})
            placed_often = [job for job in jobs.values() if job.placed > MAX_RESCUES]
            discounts = await self._leader.call(self._leader.store.open_jobs.dropped_placements, placed_often)
            drops: Counter[tuple[str, Dropped]] = Counter()
            for delivery, event in given_up:
                dropped = dropped_because(delivery.headers, self._leader.topology)
                discount = discounts.get(event.subject, 0)
                now, source = datetime.now(UTC), self._leader.topology.source
                verdict = judge(event, jobs.get(event.subject), source, now, dropped=dropped, discount=discount)
                if isinstance(verdict, Effect):
                    if dropped is None:
                        log.warning("given up by the broker: %s of %s follows", verdict.event.name, event.subject)
                    else:
                        drops[event.data.order.queue, dropped] += 1
                    effects.append(outbox_row(verdict))
                elif verdict is not None:
                    dead.append(_dead(delivery, verdict))
            for (queue, dropped), n in drops.items():
                log.warning(
                    "the broker has dropped the work of %d jobs from the queue %s (%s) as a policy asks for; it is put "
                    "back, see `jobtape doctor` and docs/reference/broker-policies.md",
                    n,
                    self._leader.topology.work_queue(queue).name,
                    dropped,
                )
        for message in dead:
            log.error("a message is no job and is kept aside (`jobtape dead list`): %s", message.reason)
        await self._leader.add(effects, dead)
        if effects:
            self._wake()
        for delivery in batch:
            await delivery.ack()


def dropped_because(headers: Mapping[str, Any], topology: Topology) -> Dropped | None:
    """Why the broker dropped the work from its work queue; None when it gave it up after many returns.

    The headers name each queue that the message left so; what was delayed has left the ladder's as it should.
    """
    for death in headers.get("x-death") or ():
        queue, reason = str(death.get("queue", "")), death.get("reason")
        if queue == topology.work_queue(queue_of(queue)).name:
            return cast("Dropped", reason) if reason in get_args(Dropped) else None
    return None


def judge(
    event: WorkEvent, job: Job | None, source: str, now: datetime, *, dropped: Dropped | None = None, discount: int = 0
) -> Effect | str | None:
    """What a job's work that the broker gave up, or ``dropped``, means for it; ``job`` as the view has it since.

    ``discount``: how many of its placements followed from drops. An effect; or None when it is of no matter any more;
    or why it is kept aside.
    """
    if job is None or job.run < event.data.run:
        return (
            "given up by the broker, and the view does not know its job: is this the broker that the view belongs to?"
        )
    if job.final or job.run > event.data.run or attempt_of(event) < attempt_due(job):
        return None
    if isinstance(event, Submitted | Requeued):
        n = 1 if isinstance(event, Submitted) else event.data.n
        if n < job.placed:
            return None  # it was placed again since
    unknown = "given up by the broker; what was ordered is not known"
    if dropped is not None:
        return rescue_dropped(job, dropped, source=source, time=now) or unknown
    if job.state is JobState.RUNNING and job.attempt == attempt_of(event):
        message = "the broker has given up delivering it: it was begun again and again, and each time its worker died"
        return failure(job, "crash_loop", message, source=source, time=now)
    return rescue(job, "given_up", source=source, time=now, dropped=discount) or unknown


def _work(body: bytes) -> WorkEvent:
    event = decode(body)
    if not isinstance(event, Submitted | Retrying | Requeued):
        raise UnreadableEvent(f"a {event.name} event on a work queue")
    return event


def _dead(delivery: Delivery, reason: str) -> DeadMessage:
    body = delivery.body
    # Without an id of its own the same message twice is the same: what matters is that it can be seen.
    name = delivery.message_id or hashlib.sha256(body).hexdigest()
    return DeadMessage(message_id=name, at=datetime.now(UTC), reason=reason, body=body, size=len(body))
