"""Empties the dead queue: what the broker gave up delivering becomes a fact of its job, what is no job is kept aside.

A delivery is given up after twenty returns. Mostly it was beside a job that kills its worker, and was never begun: then
it is put back on its queue, a few times at most. Where the job's ``started`` says that it was itself at work, the run
has failed. Either is an effect, and the message is acknowledged once the effect is in the view; so one that is taken
again comes to the same effect. It is judged by a view that has folded everything that was on the tape when the message
was taken, which is more than had happened when the broker gave it up.
"""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from jobtape.broker.bury import REASON_HEADER
from jobtape.consumer.desk import Desk
from jobtape.consumer.execution import WorkEvent, attempt_of
from jobtape.consumer.folding import outbox_row
from jobtape.consumer.intake import Delivery, Intake
from jobtape.consumer.waiting import first_of
from jobtape.schemas.effects import Effect, attempt_due, failure, put_back
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import Requeued, Retrying, Submitted, decode
from jobtape.schemas.job import Job, JobState
from jobtape.view.store import DeadMessage, OutboxRow

log = logging.getLogger(__name__)

PREFETCH: Final = 100


class DeadLetters:
    """``wake`` is called when there are new effects."""

    def __init__(self, desk: Desk, wake: Callable[[], None]) -> None:
        self._desk = desk
        self._wake = wake

    async def run(self) -> None:
        """Until it is cancelled, or the channel ends; raises what broker and view raise."""
        taken: deque[Delivery] = deque()
        news = asyncio.Event()

        def take(delivery: Delivery) -> None:
            taken.append(delivery)
            news.set()

        queue = self._desk.topology.dead_queue.name
        async with Intake(await self._desk.link.connection(), [queue], prefetch=PREFETCH, deliver=take) as intake:
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
            await self._desk.catch_up()
            jobs = await self._desk.call(self._desk.store.jobs, {event.subject for _, event in given_up})
            for delivery, event in given_up:
                verdict = judge(event, jobs.get(event.subject), self._desk.topology.source, datetime.now(UTC))
                if isinstance(verdict, Effect):
                    log.warning("given up by the broker: %s of %s follows", verdict.event.name, event.subject)
                    effects.append(outbox_row(verdict))
                elif verdict is not None:
                    dead.append(_dead(delivery, verdict))
        for message in dead:
            log.error("a message is no job and is kept aside (`jobtape dead list`): %s", message.reason)
        await self._desk.add(effects, dead)
        if effects:
            self._wake()
        for delivery in batch:
            await delivery.ack()


def judge(event: WorkEvent, job: Job | None, source: str, now: datetime) -> Effect | str | None:
    """What a job's work that the broker gave up means for it; ``job`` as the view has it since.

    An effect; or None when it is of no matter any more; or why it is kept aside.
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
    if job.state is JobState.RUNNING and job.attempt == attempt_of(event):
        message = "the broker has given up delivering it: it was begun again and again, and each time its worker died"
        return failure(job, "crash_loop", message, source=source, time=now)
    return put_back(job, "given_up", source=source, time=now) or "given up by the broker; what was ordered is not known"


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
