"""Folding messages of the tape in memory."""

import hashlib
import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobtape.broker.stream_reader import TapeMessage
from jobtape.consumer.folding import fold_batch, message_digest
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.events import Cancelled, CancelledData, Succeeded, SucceededData, encode
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.messages.barrier import barrier_body
from jobtape.schemas.topology import Topology
from jobtape.view.store import FoldedBatch
from jobtape.view.tallies import ALWAYS
from tests.consumer.installation import order_event

TOPOLOGY = Topology("unit")
EVENT = order_event(TOPOLOGY, "add", {"x": 1})
JOB = EVENT.subject
LATER = datetime(2030, 1, 1, tzinfo=UTC)
COMMON: dict[str, Any] = {"job_type": "add", "run": 1, "attempt": 1}


def succeeded(execution: str, result: Any) -> Succeeded:
    data = SucceededData(**COMMON, execution=execution, worker="w", result=result, started_at=LATER, duration=1)
    name = f"{JOB}/1/1/succeeded/{execution}"
    return Succeeded(id=name, source="/s", subject=JOB, time=LATER + timedelta(seconds=1), data=data)


def cancelled() -> Cancelled:
    return Cancelled(id=f"{JOB}/1/cancelled", source="/s", subject=JOB, time=LATER, data=CancelledData(**COMMON))


def at(offset: int, body: bytes, key: str = "event.x.add") -> TapeMessage:
    return TapeMessage(offset, body, key)


def events_of(batch: FoldedBatch) -> dict[tuple[str, str], int]:
    """Return the numbers of accepted events by job type and event."""
    return {
        (kind, name): n for (name, minute, kind, queue, _), n in batch.tally.items() if (minute, queue) == (ALWAYS, "")
    }


def nothing(_: Collection[str]) -> dict[str, Job]:
    return {}


def test_fold_batch_folds_a_whole_job() -> None:
    batch = fold_batch([at(7, encode(EVENT)), at(8, encode(succeeded("a", 2)))], 3, nothing)
    (job,) = batch.jobs
    assert (job.state, job.result, job.cursor) == (JobState.SUCCEEDED, 2, cursor_of(3, 8))
    assert [(row.cursor, row.name, row.accepted) for row in batch.history] == [
        (cursor_of(3, 7), "submitted", True),
        (cursor_of(3, 8), "succeeded", True),
    ]
    assert [row.state for row in batch.history] == [JobState.QUEUED, JobState.SUCCEEDED]
    assert events_of(batch) == {("add", "submitted"): 1, ("add", "succeeded"): 1}
    assert (batch.offset, batch.digest) == (8, hashlib.sha256(encode(succeeded("a", 2))).hexdigest())


def test_rejected_events_are_in_the_history_only() -> None:
    twice = [at(0, encode(EVENT)), at(1, encode(EVENT)), at(2, encode(cancelled())), at(3, encode(succeeded("a", 2)))]
    batch = fold_batch(twice, 1, nothing)
    assert [row.accepted for row in batch.history] == [True, False, True, False]
    assert events_of(batch) == {("add", "submitted"): 1, ("add", "cancelled"): 1}
    assert [job.state for job in batch.jobs] == [JobState.CANCELLED]


def test_fold_batch_continues_from_the_jobs_of_the_view() -> None:
    first = fold_batch([at(0, encode(EVENT))], 1, nothing)
    asked: list[set[str]] = []

    def known(ids: Collection[str]) -> dict[str, Job]:
        asked.append(set(ids))
        return {job.id: job for job in first.jobs}

    again = fold_batch([at(1, encode(EVENT)), at(2, barrier_body("p", 1), "barrier")], 1, known)
    assert asked == [{JOB}]
    assert again.jobs == [], "unchanged, so not written"
    assert again.tally == {}


def test_barriers_move_the_checkpoint_and_are_recorded() -> None:
    bodies = [barrier_body("p", 2), barrier_body("q", 1), barrier_body("p", 1)]
    batch = fold_batch([at(n, body, "barrier") for n, body in enumerate(bodies)], 1, nothing)
    assert batch.barriers == {"p": 2, "q": 1}
    assert (batch.offset, batch.history, batch.unreadable) == (2, [], [])


@pytest.mark.parametrize(
    ("body", "key", "reason"),
    [
        (b"", "event.x.add", "not JSON"),
        (b"\xff", "event.x.add", "not JSON"),
        (b"[]", "event.x.add", "list"),
        (json.dumps({**json.loads(encode(EVENT)), "schemaversion": 9}).encode(), "event.x.add", "newer"),
        (json.dumps({**json.loads(encode(EVENT)), "type": "jobtape.job.else"}).encode(), "event.x.add", "type"),
        (json.dumps({**json.loads(encode(EVENT)), "subject": "../../etc"}).encode(), "event.x.add", "subject"),
        (b"{}", "barrier", "barrier"),
        (b'{"process": "p", "seq": 0}', "barrier", "barrier"),
    ],
)
def test_unreadable_message_is_kept_and_the_rest_is_folded(body: bytes, key: str, reason: str) -> None:
    batch = fold_batch([at(0, body, key), at(1, encode(EVENT))], 1, nothing)
    (row,) = batch.unreadable
    assert (row.cursor, row.body) == (cursor_of(1, 0), body)
    assert reason in row.reason
    assert [job.id for job in batch.jobs] == [JOB]


def test_unreadable_last_message_moves_the_checkpoint() -> None:
    message = at(4, b"?")
    batch = fold_batch([message], 1, nothing)
    assert (batch.offset, batch.digest) == (4, message_digest(message))
