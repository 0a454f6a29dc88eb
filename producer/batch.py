"""Many submissions at once: a bounded number of publishes in flight, and an outcome for each."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from jobtape.producer.batch_keys import KeyedItems
from jobtape.producer.batch_outcome import Accepted, Outcome, Refused, ToPlace, Unknown
from jobtape.producer.idempotency import Keyed
from jobtape.producer.ids import new_job_id
from jobtape.producer.submission import BatchSubmission
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError, QueueFull
from jobtape.schemas.job import Order

if TYPE_CHECKING:
    from jobtape.producer.service import Producer
    from jobtape.producer.submission import Submission

IN_FLIGHT: Final = 500


async def submit_many(producer: "Producer", submissions: "Sequence[Submission]", scope: str) -> list[Outcome]:
    """What became of each, in the order given; their idempotency keys, if they have any, are those of ``scope``.

    When the broker stops confirming, what was not yet sent is refused, so the whole takes one publish time-out longer
    at most. Raises BrokerUnavailable or LogMissing when there was no broker or tape to begin with.
    """
    producer.watch.require_tape()
    checked = await asyncio.to_thread(_check, producer, submissions)
    outcomes: list[Outcome | None] = [item if isinstance(item, Refused) else None for item in checked]
    if any(outcome is None for outcome in outcomes):
        await _connected(producer)
        items = list(enumerate(checked))
        keyed = KeyedItems(producer.idempotency, scope, [(i, item) for i, item in items if isinstance(item, Keyed)])
        to_place = await keyed.claim(outcomes)
        to_place |= {i: ToPlace(item, new_job_id()) for i, item in items if isinstance(item, Order)}
        sender = _Sender(producer, outcomes)
        waiting = iter(sorted(to_place.items()))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(IN_FLIGHT, len(to_place))):
                group.create_task(sender.send(waiting))
        await keyed.settle(outcomes)
    return [outcome for outcome in outcomes if outcome is not None]


def _check(producer: "Producer", submissions: "Sequence[Submission]") -> list[Order | Keyed | Refused]:
    checked: list[Order | Keyed | Refused] = []
    for submission in submissions:
        key = submission.idempotency_key if isinstance(submission, BatchSubmission) else None
        try:
            checked.append(producer.order(submission) if key is None else producer.keyed(key, submission))
        except JobtapeError as error:
            checked.append(Refused(error))
    return checked


async def _connected(producer: "Producer") -> None:
    limit = producer.limits.publish_timeout
    try:
        async with asyncio.timeout(limit):
            await producer.watch.link.connection()
    except TimeoutError:
        trouble = producer.watch.broker_trouble or "no connection"
        raise BrokerUnavailable(f"no broker within {limit:g} s, nothing was submitted: {trouble}") from None


class _Sender:
    """Places orders until the broker stops confirming."""

    def __init__(self, producer: "Producer", outcomes: list[Outcome | None]) -> None:
        self._producer = producer
        self._outcomes = outcomes
        self._trouble: JobtapeError | None = None

    async def send(self, waiting: Iterator[tuple[int, ToPlace]]) -> None:
        for index, item in waiting:
            self._outcomes[index] = await self._place(item)

    async def _place(self, item: ToPlace) -> Outcome:
        if self._trouble is not None:
            return Refused(self._trouble)
        try:
            await self._producer.place(item.order, item.job_id, item.time)
        except QueueFull as error:  # the other queues take theirs
            return Unknown(item.job_id, full=True) if error.recorded else Refused(error)
        except BrokerUnavailable:
            self._trouble = BrokerUnavailable("not sent, since the broker stopped confirming: submit it again")
            return Unknown(item.job_id)
        except JobtapeError as error:
            return Refused(error)
        return Accepted(item.job_id)
