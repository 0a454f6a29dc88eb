"""Jobs and batches for tests, made by the real fold."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest

from jobtape.schemas import events, ids
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job, Order
from jobtape.view.store import FoldedBatch, HistoryRow, Store, history_row
from jobtape.view.tallies import Tally

postgresql_only = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

T = TypeVar("T")

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = "/jobtape/test"


def job_id(n: int, at: datetime = NOON) -> str:
    """Return the n-th id of a millisecond."""
    return str(UUID(int=UUID(ids.first_id_at(at)).int + n))


def submitted(n: int = 0, at: datetime = NOON, **order: Any) -> events.Submitted:
    values: dict[str, Any] = {"type": "add", "payload": {"x": n}, "queue": "main", "timeout": 30.0, **order}
    return events.submitted(job_id(n, at), Order(**values), source=SOURCE, time=at)


def progressed(of: events.Submitted, n: int) -> events.Progressed:
    """Return the n-th report of the only execution."""
    return events.Progressed(
        id=ids.attempt_event_id(of.subject, 1, 1, "progressed", "e1", n),
        source=SOURCE,
        subject=of.subject,
        time=of.time + timedelta(seconds=1),
        data=events.ProgressedData(
            job_type=of.data.job_type, run=1, attempt=1, execution="e1", n=n, fraction=1 - 1 / n, message=f"step {n}"
        ),
    )


def succeeded(of: events.Submitted, result: Any = None) -> events.Succeeded:
    return events.Succeeded(
        id=ids.attempt_event_id(of.subject, 1, 1, "succeeded", "e1"),
        source=SOURCE,
        subject=of.subject,
        time=of.time + timedelta(seconds=2),
        data=events.SucceededData(
            job_type=of.data.job_type,
            run=1,
            attempt=1,
            execution="e1",
            worker="w1",
            result=result,
            started_at=of.time + timedelta(seconds=1),
            duration=1.0,
        ),
    )


def folded(
    tape: Sequence[events.JobEvent], first: int = 0, epoch: int = 1, known: Mapping[str, Job] | None = None
) -> FoldedBatch:
    """Return the batch of ``tape``, whose first event has the offset ``first``. ``known``: the jobs before it."""
    jobs: dict[str, Job] = dict(known or {})
    history: list[HistoryRow] = []
    tally = Tally()
    for offset, event in enumerate(tape, first):
        before = jobs.get(event.subject)
        after = jobs[event.subject] = evolve(before, event, cursor_of(epoch, offset))
        history.append(history_row(cursor_of(epoch, offset), event, events.encode(event).decode(), before, after))
        if after is not before:
            tally.add(before, event, after)
    for job in jobs.values():
        tally.move((known or {}).get(job.id), job)
    return FoldedBatch(
        offset=first + len(tape) - 1,
        digest="d" * 64,
        jobs=list(jobs.values()),
        history=history,
        tally=tally.sums(),
        failures=tally.failures(),
    )


def begin(store: Store, owner: str = "me") -> None:
    """Make ``owner`` the active projector of an empty view."""
    assert store.create_checkpoint()
    assert store.take_lease(owner, 600) is not None


def commit(store: Store, batch: FoldedBatch, owner: str = "me") -> bool:
    """Commit at the checkpoint."""
    now = store.checkpoint()
    assert now is not None
    return store.commit(owner, (now.epoch, now.offset), batch, 60)


def record(store: Store, *tape: events.JobEvent) -> FoldedBatch:
    """Commit ``tape`` as the next events."""
    now = store.checkpoint()
    assert now is not None
    known = store.jobs({event.subject for event in tape})
    batch = folded(tape, first=0 if now.offset is None else now.offset + 1, epoch=now.epoch, known=known)
    assert commit(store, batch)
    return batch


def at_once(actions: Sequence[Callable[[], T]]) -> list[T]:
    """Run all actions in threads that begin together; return what they return."""
    start = threading.Barrier(len(actions))

    def run(action: Callable[[], T]) -> T:
        start.wait()
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))
