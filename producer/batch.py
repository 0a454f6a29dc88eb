"""Many submissions at once: a bounded number of publishes in flight, and an outcome for each."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobtape.producer.ids import new_job_id
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError
from jobtape.schemas.job import Order

if TYPE_CHECKING:
    from jobtape.producer.service import Producer
    from jobtape.producer.submission import Submission

IN_FLIGHT: Final = 500


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is on the tape and on its queue."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was published; ``error`` says why."""

    error: JobtapeError


@dataclass(frozen=True, slots=True)
class Unknown:
    """No confirm came in time: the job ``job_id`` may have been accepted, or not."""

    job_id: str


Outcome = Accepted | Refused | Unknown


async def submit_many(producer: "Producer", submissions: "Sequence[Submission]") -> list[Outcome]:
    """What became of each, in the order given.

    When the broker stops confirming, what was not yet sent is refused, so the whole takes one publish time-out longer
    at most. Raises BrokerUnavailable or LogMissing when there was no broker or tape to begin with.
    """
    producer.watch.require_tape()
    checked = await asyncio.to_thread(_check, producer, submissions)
    outcomes: list[Outcome | None] = [item if isinstance(item, Refused) else None for item in checked]
    orders = iter([(index, item) for index, item in enumerate(checked) if isinstance(item, Order)])
    if any(outcome is None for outcome in outcomes):
        await _connected(producer)
        sender = _Sender(producer, outcomes)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(IN_FLIGHT, len(checked))):
                group.create_task(sender.send(orders))
    return [outcome for outcome in outcomes if outcome is not None]


def _check(producer: "Producer", submissions: "Sequence[Submission]") -> list[Order | Refused]:
    checked: list[Order | Refused] = []
    for submission in submissions:
        try:
            checked.append(producer.order(submission))
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

    async def send(self, orders: Iterator[tuple[int, Order]]) -> None:
        for index, order in orders:
            self._outcomes[index] = await self._place(order)

    async def _place(self, order: Order) -> Outcome:
        if self._trouble is not None:
            return Refused(self._trouble)
        job_id = new_job_id()
        try:
            await self._producer.place(order, job_id)
        except BrokerUnavailable:
            self._trouble = BrokerUnavailable("not sent, since the broker stopped confirming: submit it again")
            return Unknown(job_id)
        except JobtapeError as error:
            return Refused(error)
        return Accepted(job_id)
