"""Submits a batch with a limited number of publishes in flight, and returns an outcome for each item."""

import asyncio
from collections.abc import Sequence

from jobtape.producer.service.batches.keys import KeyedItems
from jobtape.producer.service.batches.outcome import ItemAccepted, ItemOutcome, ItemRefused, ItemToPublish, ItemUnknown
from jobtape.producer.service.idempotency import KeyedOrder
from jobtape.producer.service.ids import new_job_id
from jobtape.producer.service.service import JobService
from jobtape.producer.service.submitter import publish_each
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError, QueueFull
from jobtape.schemas.job import Order
from jobtape.schemas.submission import BatchSubmission, Submission


async def submit_many(service: JobService, submissions: Sequence[Submission], scope: str) -> list[ItemOutcome]:
    """Submit all, and return their outcomes in the same order. ``scope``: that of their idempotency keys.

    When the broker stops confirming, the items that were not yet sent are refused, so a batch takes at most one publish
    timeout longer. Raises BrokerUnavailable and TapeMissing when there is no broker or tape at the beginning.
    """
    service.watch.require_tape()
    checked = await asyncio.to_thread(_check, service, submissions)
    outcomes: list[ItemOutcome | None] = [item if isinstance(item, ItemRefused) else None for item in checked]
    if any(outcome is None for outcome in outcomes):
        await _connected(service)
        items = list(enumerate(checked))
        keyed = KeyedItems(service.idempotency, scope, [(i, item) for i, item in items if isinstance(item, KeyedOrder)])
        to_place = await keyed.claim(outcomes)
        to_place |= {i: ItemToPublish(item, new_job_id()) for i, item in items if isinstance(item, Order)}
        await publish_each(sorted(to_place.items()), _Sender(service, outcomes).send)
        await keyed.settle(outcomes)
    return [outcome for outcome in outcomes if outcome is not None]


def _check(service: JobService, submissions: Sequence[Submission]) -> list[Order | KeyedOrder | ItemRefused]:
    checked: list[Order | KeyedOrder | ItemRefused] = []
    for submission in submissions:
        key = submission.idempotency_key if isinstance(submission, BatchSubmission) else None
        try:
            checked.append(service.order(submission) if key is None else service.keyed(key, submission))
        except JobtapeError as error:
            checked.append(ItemRefused(error))
    return checked


async def _connected(service: JobService) -> None:
    limit = service.limits.publish_timeout
    try:
        async with asyncio.timeout(limit):
            await service.watch.link.connection()
    except TimeoutError:
        trouble = service.watch.broker_trouble or "no connection"
        raise BrokerUnavailable(f"no broker within {limit:g} s, nothing was submitted: {trouble}") from None


class _Sender:
    """Publishes orders until the broker stops confirming."""

    def __init__(self, service: JobService, outcomes: list[ItemOutcome | None]) -> None:
        self._service = service
        self._outcomes = outcomes
        self._trouble: JobtapeError | None = None

    async def send(self, numbered: tuple[int, ItemToPublish]) -> None:
        index, item = numbered
        self._outcomes[index] = await self._place(item)

    async def _place(self, item: ItemToPublish) -> ItemOutcome:
        if self._trouble is not None:
            return ItemRefused(self._trouble)
        try:
            await self._service.place(item.order, item.job_id, item.time)
        except QueueFull as error:  # other queues may have room
            return ItemRefused(error)
        except BrokerUnavailable:
            self._trouble = BrokerUnavailable("not sent, since the broker stopped confirming: submit it again")
            return ItemUnknown(item.job_id)
        except JobtapeError as error:
            return ItemRefused(error)
        return ItemAccepted(item.job_id)
