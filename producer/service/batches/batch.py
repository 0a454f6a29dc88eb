"""Submits a batch, and returns an outcome for each item.

Theory of operation. The items are published in chunks, each with the confirms of some chunks before it outstanding: so
the broker always has work, and other requests get their turns between the chunks. An item whose publish failed, since
the connection was lost or its queue was full, is published again by itself, under the same event id.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

from jobtape.producer.service.batches.keys import KeyedItems
from jobtape.producer.service.batches.outcome import ItemAccepted, ItemOutcome, ItemRefused, ItemToPublish, ItemUnknown
from jobtape.producer.service.ids import new_job_id, utc_now
from jobtape.producer.service.service import JobService
from jobtape.producer.service.submission.idempotency import KeyedOrder
from jobtape.producer.service.submission.submitter import publish_each
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError
from jobtape.schemas.job import Order
from jobtape.schemas.submission import BatchSubmission, Submission

CHUNK: Final = 250
UNDER_WAY: Final = 4
"""Chunks that are published and not confirmed yet."""

_Numbered = tuple[int, ItemToPublish]


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
        to_publish = await keyed.claim(outcomes)
        now = utc_now()
        to_publish |= {i: ItemToPublish(item, new_job_id(), now) for i, item in items if isinstance(item, Order)}
        await _Sender(service, outcomes).send_all(sorted(to_publish.items()))
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
        fault = service.watch.broker_fault or "no connection"
        raise BrokerUnavailable(f"no broker within {limit:g} s, nothing was submitted: {fault}") from None


class _Sender:
    """Publishes orders until the broker stops confirming."""

    def __init__(self, service: JobService, outcomes: list[ItemOutcome | None]) -> None:
        self._service = service
        self._outcomes = outcomes
        self._fault: JobtapeError | None = None
        self._again: list[_Numbered] = []
        """Items whose publish failed."""

    async def send_all(self, items: Iterable[_Numbered]) -> None:
        """Publish ``items``, and set their outcomes."""
        rest = iter(items)
        under_way: deque[_Chunk] = deque()
        while chunk := list(islice(rest, CHUNK)):
            under_way.append(self._begin(chunk))
            if len(under_way) == UNDER_WAY:
                await self._settle(under_way.popleft())
        for begun in under_way:
            await self._settle(begun)
        await publish_each(self._again, self._send)

    def _begin(self, items: Sequence[_Numbered]) -> "_Chunk":
        publishes: dict[asyncio.Future[None], _Numbered] = {}
        for index, item in items:
            if self._fault is not None:
                self._outcomes[index] = ItemRefused(self._fault)
                continue
            try:
                confirmed = self._service.begin_to_submit(item.order, item.job_id, item.time)
            except JobtapeError as error:
                self._outcomes[index] = ItemRefused(error)
            else:
                publishes[confirmed] = (index, item)
        return _Chunk(publishes, asyncio.get_running_loop().time() + self._service.limits.publish_timeout)

    async def _settle(self, chunk: "_Chunk") -> None:
        if not chunk.publishes:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(chunk.deadline):
                # In their order, as confirms come for many at once: waiting for all would wake this for each of them.
                for confirmed in chunk.publishes:
                    if not confirmed.done():
                        await asyncio.wait({confirmed})
        for confirmed, (index, item) in chunk.publishes.items():
            if not confirmed.done():
                confirmed.cancel()
                self._stop()
                self._outcomes[index] = ItemUnknown(item.job_id)
            elif confirmed.exception() is None:
                self._outcomes[index] = ItemAccepted(item.job_id)
            else:
                # Otherwise the chunks after this one would be offered to a full queue too.
                self._service.publisher.note_refusal(item.order.queue, confirmed.exception())
                self._again.append((index, item))

    def _stop(self) -> None:
        self._fault = BrokerUnavailable("not sent, since the broker stopped confirming: submit it again")

    async def _send(self, numbered: _Numbered) -> None:
        index, item = numbered
        self._outcomes[index] = await self._publish(item)

    async def _publish(self, item: ItemToPublish) -> ItemOutcome:
        if self._fault is not None:
            return ItemUnknown(item.job_id)
        try:
            await self._service.submit_order(item.order, item.job_id, item.time, repeated=True)
        except BrokerUnavailable:
            self._stop()
            return ItemUnknown(item.job_id)
        except JobtapeError as error:
            return ItemRefused(error)
        return ItemAccepted(item.job_id)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Items that are published. ``deadline``: by the clock of the event loop."""

    publishes: dict["asyncio.Future[None]", _Numbered]
    deadline: float
