"""A job is read as it was written, field by field."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobtape.schemas.job import ErrorInfo, Job, JobState, Progress
from jobtape.view import tables
from jobtape.view.store import FoldedBatch, Store
from tests.schemas.strategies import gates
from tests.view.samples import NOON, commit, job_id, record, submitted, succeeded

text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
whole = st.integers(-(2**63), 2**63 - 1)
plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001
counters = st.integers(0, 2**63 - 1)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


any_job = st.builds(
    Job,
    id=st.integers(0, 3).map(job_id),
    type=text,
    state=st.sampled_from(JobState),
    run=counters,
    attempt=counters,
    payload=maybe(st.dictionaries(text, plain, max_size=4)),
    result=plain,
    error=maybe(st.builds(ErrorInfo, type=text, message=text, traceback=maybe(text))),
    progress=maybe(st.builds(Progress, fraction=st.floats(0, 1), message=maybe(text))),
    queue=maybe(text),
    labels=maybe(st.dictionaries(text, text, max_size=3)),
    correlation_id=maybe(text),
    reply_to=maybe(text),
    timeout=maybe(st.floats(0, 1e300, exclude_min=True)),
    max_attempts=maybe(counters),
    submitted_at=maybe(times),
    run_at=maybe(times),
    started_at=maybe(times),
    finished_at=maybe(times),
    reason=maybe(text),
    duplicate_of=maybe(text),
    execution=maybe(text),
    superseded=st.lists(text, max_size=3).map(tuple),
    progress_n=counters,
    gates=maybe(gates),
    rank=maybe(counters),
    has_slots=st.booleans(),
    flow=maybe(text),
    node=maybe(text),
    item=maybe(counters),
    depth=counters,
    follow_ups=maybe(st.dictionaries(text, plain, max_size=3)),
    signals=maybe(st.dictionaries(text, plain, max_size=3)),
    cursor=counters,
)


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(job=any_job)
def test_job_is_read_as_it_was_written(store: Store, job: Job) -> None:
    now = store.checkpoint()
    assert now is not None
    offset = 0 if now.offset is None else now.offset + 1
    assert commit(store, FoldedBatch(offset=offset, digest="", jobs=[job]))
    found = store.job(job.id)
    assert found is not None
    assert found == job
    if store.dialect == "sqlite":
        assert repr(store.quick.job(job.id)) == repr(found)
    # 1, 1.0 and True are equal, but not the same
    assert (repr(found.result), repr(found.payload)) == (repr(job.result), repr(job.payload))
    moments = (found.submitted_at, found.run_at, found.started_at, found.finished_at)
    assert all(time is None or time.tzinfo is UTC for time in moments)


def test_columns_are_fields_of_job_in_order() -> None:
    assert [column.name for column in tables.jobs.c] == [field.name for field in fields(Job)]


def test_none_and_empty_remain_different(store: Store) -> None:
    bare = Job(id=job_id(1), type="add", state=JobState.QUEUED, run=1, attempt=1)
    empty = replace(bare, id=job_id(2), payload={}, labels={}, result="", reason="")
    assert commit(store, FoldedBatch(offset=0, digest="", jobs=[bare, empty]))
    assert store.jobs([bare.id, empty.id]) == {bare.id: bare, empty.id: empty}


def test_later_batch_replaces_job(store: Store) -> None:
    order = submitted(1)
    record(store, order)
    batch = record(store, order, succeeded(order, result=[7]))
    assert [store.job(job.id) for job in batch.jobs] == list(batch.jobs)


def test_unknown_ids_are_omitted(store: Store) -> None:
    known = record(store, *(submitted(n) for n in range(3))).jobs
    assert store.job(job_id(99)) is None
    assert store.jobs([]) == {}
    assert store.jobs([job_id(99), *(job.id for job in known)]) == {job.id: job for job in known}


def test_jobs_reads_more_ids_than_fit_one_statement(store: Store) -> None:
    known = record(store, *(submitted(n, payload={"text": "x" * 6000}) for n in range(1201))).jobs
    assert store.jobs({job.id for job in known}) == {job.id: job for job in known}


def test_reader_sees_each_commit_at_once(store: Store) -> None:
    for n in range(30):
        record(store, submitted(n, at=NOON))
        found = store.job(job_id(n))
        assert found is not None
        now = store.checkpoint()
        assert now is not None
        assert found.cursor == now.cursor
