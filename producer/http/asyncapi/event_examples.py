"""One event of each kind for documents, from a tape with two jobs: a mail that fails twice and succeeds after a
redrive, and one that is cancelled.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from jobtape.schemas import events, ids, plainjson
from jobtape.schemas.cursor import FIRST_EPOCH, cursor_of
from jobtape.schemas.delivered_event import CURSOR, encode_delivered
from jobtape.schemas.events import JobEvent
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import ErrorInfo, Job, Order

_JOB: Final = "0198c2a0-7b1e-7c3d-9f42-5a1d3b6c8e90"
_OTHER: Final = "0198c2a0-7b20-7d11-8c55-0d9be1f3a6c4"
_WORKER: Final = "host-1:4242"
_START: Final = datetime(2030, 1, 31, 12, tzinfo=UTC)
_ORDER: Final = Order(
    type="mail.send",
    payload={"to": "ada@example.org", "subject": "Your order"},
    queue="mail",
    labels={"customer": "42"},
    correlation_id="order-7",
    timeout=30.0,
    max_attempts=2,
    reply_to="shop",
)
_ERROR: Final = ErrorInfo(type="SMTPRecipientsRefused", message="450 mailbox busy, try again later")


@dataclass(frozen=True, slots=True)
class Example:
    """An event as subscribers get it: its JSON and its AMQP headers."""

    name: str
    delivered: dict[str, Any]
    headers: dict[str, Any]


def examples(source: str) -> dict[str, Example]:
    """Return the examples by the event's name. ``source`` is the installation's. The fold accepts all the events."""
    found: dict[str, Example] = {}
    jobs: dict[str, Job] = {}
    for offset, event in enumerate(_tape(source), start=690):
        job = jobs[event.subject] = evolve(jobs.get(event.subject), event)
        cursor = cursor_of(FIRST_EPOCH, offset)
        delivered = plainjson.loads(encode_delivered(events.encode(event).decode(), cursor))
        headers = {CURSOR: cursor, "job": job.id, "job_type": job.type, "state": job.state.value, "labels": job.labels}
        found.setdefault(event.name, Example(event.name, delivered, headers))
    return found


def _tape(source: str) -> Iterator[JobEvent]:
    yield events.submitted(_JOB, _ORDER, source=source, time=_START)
    failure: dict[str, Any] = {"error": _ERROR, "reason": "error"}
    first = _Execution(source, 1, 1, "7d5c0f3ab1e24b0d")
    yield first.event(events.Started, 1, worker=_WORKER)
    yield first.event(events.Progressed, 2, n=1, fraction=0.5, message="connected")
    yield first.event(events.Retrying, 3, next_at=_at(13), order=_ORDER, **failure)
    second = _Execution(source, 1, 2, "b02e6d9c5f814f37")
    yield second.event(events.Failed, 15, started_at=_at(14), duration=1.0, worker=_WORKER, **failure)
    third = _Execution(source, 2, 1, "e41f8a7720c94d5e")
    yield third.run_event(events.Redriven, 60)
    yield third.run_event(events.Requeued, 60, "/1", n=1, why="redriven", order=_ORDER)
    result = {"message_id": "<7@example.org>"}
    yield third.event(events.Succeeded, 62, result=result, started_at=_at(61), duration=1.0, worker=_WORKER)
    other = events.submitted(_OTHER, _ORDER, source=source, time=_at(70))
    yield other
    yield events.cancelled(evolve(None, other), source=source, time=_at(71))


def _at(second: int) -> datetime:
    return _START + timedelta(seconds=second)


@dataclass(frozen=True, slots=True)
class _Execution:
    source: str
    run: int
    attempt: int
    execution: str

    def event(self, cls: type[Any], second: int, *, n: int | None = None, **data: Any) -> JobEvent:
        fact = ids.execution_fact(_JOB, self.run, self.attempt, cls.name, self.execution, n)
        return self._event(cls, fact, second, execution=self.execution, **({} if n is None else {"n": n}), **data)

    def run_event(self, cls: type[Any], second: int, suffix: str = "", **data: Any) -> JobEvent:
        return self._event(cls, ids.run_fact(_JOB, self.run, cls.name) + suffix, second, **data)

    def _event(self, cls: type[Any], event_id: str, second: int, **data: Any) -> JobEvent:
        event: JobEvent = cls(
            id=event_id,
            source=self.source,
            subject=_JOB,
            time=_at(second),
            correlationid=_ORDER.correlation_id,
            data={"job_type": _ORDER.type, "run": self.run, "attempt": self.attempt, **data},
        )
        return event
