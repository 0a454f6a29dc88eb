"""Signs of life of workers in the view: written by the active projector only, and removed when they are old."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, update

from jobtape.schemas import events, ids
from jobtape.schemas.messages.worker_sign import GONE_AFTER, SILENT_AFTER, RunningExecution, WorkerSign
from jobtape.view import tables
from jobtape.view.store import Store
from tests.view.samples import SOURCE, record, submitted

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
SIGN = WorkerSign(
    id="a",
    name="host-1",
    host="host",
    pid=1,
    version="0.1.0",
    state="alive",
    fault=None,
    started_at=NOW,
    queues=("default",),
    job_types=("add",),
    slots=2,
    running=1,
    executions=(RunningExecution("0198c2a0-7b1e-7c3d-9f42-5a1d3b6c8e90", "add", 1, 2, NOW, settled=False),),
    waiting=("0198c2a0-7b1e-7c3d-9f42-5a1d3b6c8e91",),
)


def age(store: Store, seconds: float) -> None:
    with store._database.writing() as connection:
        connection.execute(update(tables.workers).values(at=tables.workers.c.at - seconds))


def signs_of(store: Store) -> int:
    """Return how many signs are kept."""
    with store._database.reading() as connection:
        return connection.execute(select(func.count()).select_from(tables.workers)).scalar_one()


def test_last_sign_is_read_as_it_was_written(store: Store) -> None:
    draining = replace(SIGN, state="draining", fault="\x00 müde", executions=())
    other = replace(SIGN, id="b", name="host-0")
    assert store.worker_signs.note("me", [SIGN])
    assert store.worker_signs.note("me", [other, draining])
    assert [seen.sign for seen in store.worker_signs.all()] == [other, draining]
    assert store.worker_signs.note("me", [replace(other, state="stopped")])
    assert [seen.sign.id for seen in store.worker_signs.all()] == ["a"]


def test_old_sign_is_silent_then_left_out_then_removed(store: Store) -> None:
    store.worker_signs.note("me", [SIGN])
    assert [seen.state for seen in store.worker_signs.all()] == ["alive"]
    age(store, SILENT_AFTER + 1)
    assert [seen.state for seen in store.worker_signs.all()] == ["silent"]
    age(store, GONE_AFTER)
    assert store.worker_signs.all() == []
    store.worker_signs.note("me", [])
    assert signs_of(store) == 0


def started(of: events.Submitted, execution: str, at: datetime) -> events.Started:
    return events.Started(
        id=ids.attempt_event_id(of.subject, 1, 1, "started", execution),
        source=SOURCE,
        subject=of.subject,
        time=at,
        data=events.StartedData(job_type=of.data.job_type, run=1, attempt=1, execution=execution, worker=execution),
    )


def test_gone_worker_is_listed_until_another_one_has_begun_its_job(store: Store) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=GONE_AFTER + 60)
    job = submitted(at=begun)
    execution = RunningExecution(job.subject, "add", 1, 1, begun, settled=False)
    store.worker_signs.note("me", [replace(SIGN, executions=(execution,)), replace(SIGN, id="b", executions=())])
    record(store, job, started(job, "e1", begun))
    age(store, GONE_AFTER + 1)
    store.worker_signs.note("me", [])
    assert [(seen.sign.id, seen.state) for seen in store.worker_signs.listed()] == [("a", "silent")]
    assert store.worker_signs.all() == [], "no decision is taken by a worker that is gone"
    record(store, started(job, "e2", datetime.now(UTC)))
    assert store.worker_signs.listed() == []
    store.worker_signs.note("me", [])
    assert signs_of(store) == 0


def test_only_active_projector_writes_signs(store: Store) -> None:
    assert not store.worker_signs.note("another", [SIGN])
    assert store.worker_signs.all() == []
