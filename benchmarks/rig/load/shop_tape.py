"""The tape of a day of the shop: many jobs of several types that were not executed."""

import heapq
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from jobtape.schemas import events, ids
from jobtape.schemas.job import ErrorInfo, Order

DAY: Final = 86_400.0
REFUSED: Final = 1000
"""Jobs that failed with the same error at the same place."""
TYPES: Final = (("mail.send", "mail", 60), ("payment.charge", "default", 25), ("text.count", "default", 12))
"""Job types, their queues and their weights; the rest are reports."""
_SOURCE: Final = "/jobtape/shop"
_TRACEBACK: Final = """Traceback (most recent call last):
  File "/srv/shop/payments.py", line {line}, in {function}
    answer = bank.charge(customer, amount)
  File "/srv/venv/lib/python3.12/site-packages/bank/client.py", line 88, in charge
    raise {error}({message!r})
{error}: {message}
"""


def day(
    jobs: int, now: datetime, seed: int = 1, seconds: float = DAY, refused: int = REFUSED
) -> Iterator[events.JobEvent]:
    """Yield the events of the jobs of the ``seconds`` before ``now`` (UTC), in the order of their times.

    ``refused``: how many are payments that the bank refuses.
    """
    chance = random.Random(seed)
    start, refused_every = now - timedelta(seconds=seconds), max(2, jobs // refused)
    waiting: list[tuple[datetime, int, events.JobEvent]] = []
    number = 0
    for n in range(jobs):
        # More and more come in a unit of time.
        share = n / jobs
        at = min(start + timedelta(seconds=seconds * (share + 0.4 * share * (1 - share))), now - timedelta(seconds=30))
        for event in _Job(n, at, chance).tape(refused=n % refused_every == 1):
            number += 1
            heapq.heappush(waiting, (event.time, number, event))
        while waiting and waiting[0][0] <= at:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


class _Job:
    """One job, submitted at ``at``."""

    def __init__(self, n: int, at: datetime, chance: random.Random) -> None:
        self._n, self._at, self._chance = n, at, chance
        self.id = str(UUID(int=UUID(ids.first_id_at(at)).int + n))
        names = [name for name, _, _ in TYPES] + ["report.build"]
        self.type = chance.choices(names, [weight for _, _, weight in TYPES] + [3])[0]
        self.queue = {name: queue for name, queue, _ in TYPES}.get(self.type, "reports")

    def tape(self, *, refused: bool) -> Iterator[events.JobEvent]:
        """Yield its events. ``refused``: it is a payment that the bank refuses."""
        chance = self._chance
        if refused:
            self.type, self.queue = "payment.charge", "default"
        attempts = 3 if self.type == "mail.send" else 1
        order = Order(
            type=self.type,
            payload=self._payload(),
            queue=self.queue,
            labels={"tenant": "abc"[self._n % 3]},
            timeout=60,
            max_attempts=attempts,
        )
        yield events.submitted(self.id, order, source=_SOURCE, time=self._at)
        if chance.random() < 0.004:
            data = events.CancelledData(job_type=self.type, run=1, attempt=1)
            yield events.Cancelled(id=ids.run_event_id(self.id, 1, "cancelled"), data=data, **self._stamp(2.0))
            return
        begun, attempt = chance.expovariate(2.0), 1
        while self.type == "mail.send" and attempt < attempts and chance.random() < 0.06:
            yield from self._retried(begun, attempt)
            begun, attempt = begun + 5.0 + chance.random(), attempt + 1
        yield self._started(begun, attempt)
        lasted = chance.lognormvariate(-1.5, 1.0) * (20 if self.type == "report.build" else 1)
        if refused:
            yield self._failed(begun, lasted, attempt, ("ConnectionError", "the bank refused the connection", 41))
        elif self.type == "payment.charge" and chance.random() < 0.04:
            amount = -chance.randint(1, 500)
            yield self._failed(begun, lasted, attempt, ("ValueError", f"the amount is not positive: {amount}", 57))
        else:
            yield self._succeeded(begun, lasted, attempt)

    def _payload(self) -> dict[str, Any]:
        if self.type == "mail.send":
            return {"to": f"customer{self._n % 977}@example.org", "subject": f"Your order {self._n}"}
        if self.type == "payment.charge":
            return {"customer": 7000 + self._n % 977, "amount": round(self._chance.uniform(1, 300), 2)}
        return {"text": "x" * (self._n % 40)} if self.type == "text.count" else {"year": 2020 + self._n % 6}

    def _stamp(self, seconds: float) -> dict[str, Any]:
        return {"source": _SOURCE, "subject": self.id, "time": self._at + timedelta(seconds=seconds)}

    def _id(self, event: str, attempt: int) -> str:
        return ids.attempt_event_id(self.id, 1, attempt, event, "e")

    def _worker(self) -> str:
        return f"shop-{self._n % 4}"

    def _started(self, begun: float, attempt: int) -> events.JobEvent:
        data = events.StartedData(job_type=self.type, run=1, attempt=attempt, execution="e", worker=self._worker())
        return events.Started(id=self._id("started", attempt), data=data, **self._stamp(begun))

    def _retried(self, begun: float, attempt: int) -> Iterator[events.JobEvent]:
        yield self._started(begun, attempt)
        error = ErrorInfo(type="TimeoutError", message="the mail server does not answer")
        following = self._at + timedelta(seconds=begun + 5)
        data = events.RetryingData(
            job_type=self.type, run=1, attempt=attempt, execution="e", error=error, reason="error", next_at=following
        )
        yield events.Retrying(id=self._id("retrying", attempt), data=data, **self._stamp(begun + 0.5))

    def _succeeded(self, begun: float, lasted: float, attempt: int) -> events.JobEvent:
        data = events.SucceededData(
            job_type=self.type, run=1, attempt=attempt, execution="e", worker=self._worker(),
            result={"done": True, "number": self._n}, started_at=self._at + timedelta(seconds=begun), duration=lasted,
        )  # fmt: skip
        return events.Succeeded(id=self._id("succeeded", attempt), data=data, **self._stamp(begun + lasted))

    def _failed(self, begun: float, lasted: float, attempt: int, error: tuple[str, str, int]) -> events.JobEvent:
        name, message, line = error
        text = _TRACEBACK.format(line=line, function="charge", error=name, message=message)
        data = events.FailedData(
            job_type=self.type, run=1, attempt=attempt, execution="e", worker=self._worker(), reason="error",
            error=ErrorInfo(type=name, message=message, traceback=text),
            started_at=self._at + timedelta(seconds=begun), duration=lasted,
        )  # fmt: skip
        return events.Failed(id=self._id("failed", attempt), data=data, **self._stamp(begun + lasted))
