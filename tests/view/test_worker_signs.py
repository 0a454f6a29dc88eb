"""Signs of life of workers in the view: written by the active projector only, and removed when they are old."""

from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import func, select, update

from jobtape.schemas.messages.worker_sign import GONE_AFTER, SILENT_AFTER, RunningExecution, WorkerSign
from jobtape.view import tables
from jobtape.view.store import Store

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
    with store._database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(tables.workers)).scalar() == 0


def test_only_active_projector_writes_signs(store: Store) -> None:
    assert not store.worker_signs.note("another", [SIGN])
    assert store.worker_signs.all() == []
