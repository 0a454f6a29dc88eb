"""Searches in payloads, results and errors, on both databases: exact values, pages, and their limits."""

from typing import Any

import pytest

from jobtape.schemas import events, ids
from jobtape.schemas.filters.job_search import JobSearch, value_search
from jobtape.schemas.job import ErrorInfo, JobState
from jobtape.schemas.queueing.gates import Gates
from jobtape.view.jobs import job_search
from jobtape.view.jobs.job_search import Redriven
from jobtape.view.store import JobQuery, Store
from tests.schemas.events_of_a_job import placed
from tests.view.samples import SOURCE, job_id, record, submitted, succeeded

PAYLOADS: list[dict[str, Any]] = [
    {"customer": {"id": 42, "name": 'Žofie "Z" \\ 名'}, "tags": ["red", "blue"]},
    {"customer": {"id": "42"}, "items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}]},
    {"id": 9007199254740993, "customer": {"id": 420}},
    {"id": 9007199254740992, "price": 1.5, "done": True, "note": None},
    {"deep": {"a": {"b": {"c": [[{"d": "x=y&z"}]]}}}, "0": "zero", "empty": ""},
]


def failed(of: events.Submitted, error: ErrorInfo) -> events.Failed:
    return events.Failed(
        id=ids.attempt_event_id(of.subject, 1, 1, "failed", "e1"),
        source=SOURCE,
        subject=of.subject,
        time=of.time,
        data=events.FailedData(job_type=of.data.job_type, run=1, attempt=1, reason="error", error=error),
    )


@pytest.fixture
def filled(store: Store) -> Store:
    tape: list[events.JobEvent] = [submitted(n, payload=payload) for n, payload in enumerate(PAYLOADS)]
    jobs = [each for each in tape if isinstance(each, events.Submitted)]
    tape += [succeeded(jobs[0], {"total": 7, "rows": ["é", None]}), succeeded(jobs[1], "done")]
    tape += [
        failed(jobs[2], ErrorInfo(type="TimeoutError", message='no "answer"\nfrom 名-1', traceback="secret.py")),
        failed(jobs[3], ErrorInfo(type="ValueError", message="Größe ist ÜBERALL falsch")),
    ]
    record(store, *tape)
    return store


def redriven(of: events.Submitted, run: int, cause: str | None) -> events.Redriven:
    return events.Redriven(
        id=ids.run_event_id(of.subject, run, "redriven"),
        source=SOURCE,
        subject=of.subject,
        time=of.time,
        causationid=cause,
        data=events.RedrivenData(job_type=of.data.job_type, run=run, attempt=1),
    )


def test_outcomes_of_a_redrive_are_those_of_the_run_that_it_began(store: Store) -> None:
    """Of six jobs that ended, one redrive takes four; it does not count those that others took before and after."""
    jobs = [submitted(n) for n in range(6)]
    redrive = submitted(10, type="jobtape.redrive", payload={})
    cause = ids.attempt_event_id(redrive.subject, 1, 1, "placed", "1")
    error = ErrorInfo(type="ValueError", message="no")
    again = [failed(each, error) for each in jobs]
    record(store, *jobs, *again, redriven(jobs[4], 2, "another/1/1/placed/1"), redrive)
    second = events.Failed.model_validate(
        {**again[1].model_dump(), "id": "2", "data": {**again[1].data.model_dump(), "run": 2}}
    )
    tape: list[events.JobEvent] = [redriven(each, 2, cause) for each in jobs[:4]]
    tape += [redriven(jobs[5], 2, None), second, redriven(jobs[1], 3, None)]
    assert store.search.redriven(redrive.subject) == Redriven({}, 0)
    record(store, *tape)
    assert store.search.redriven(redrive.subject) == Redriven({JobState.QUEUED: 3}, 1)
    done = succeeded(jobs[0])
    data = {**done.data.model_dump(), "run": 2}
    record(store, events.Succeeded.model_validate({**done.model_dump(), "id": "3", "data": data}), succeeded(redrive))
    record(store, redriven(jobs[3], 2, cause))
    assert store.search.redriven(redrive.subject) == Redriven({JobState.SUCCEEDED: 1, JobState.QUEUED: 2}, 1)
    assert store.search.redriven(jobs[0].subject) is None


def test_jobs_are_found_by_their_ordering_key_and_their_slot(store: Store) -> None:
    keys = ["a", "b", "a", None]
    tape = [submitted(n, gates=None if key is None else Gates(ordering_key=key)) for n, key in enumerate(keys)]
    record(store, *tape, placed(1, job=tape[0].subject))
    found = store.search.page(JobQuery(ordering_key="a")).jobs
    assert [job.id for job in found] == [tape[2].subject, tape[0].subject]
    assert [job.id for job in store.list_jobs(JobQuery(ordering_key="a", has_slots=True))] == [tape[0].subject]
    assert store.list_jobs(JobQuery(ordering_key="c")) == []


@pytest.mark.parametrize(
    ("part", "path", "value", "expected"),
    [
        ("payload", "customer.id", "42", [0, 1]),
        ("payload", "customer.id", 42, [0, 1]),
        ("payload", "customer.name", 'Žofie "Z" \\ 名', [0]),
        ("payload", "id", 9007199254740993, [2]),
        ("payload", "id", "9007199254740992", [3]),
        ("payload", "price", 1.5, [3]),
        ("payload", "done", True, [3]),
        ("payload", "note", None, [3]),
        ("payload", "note", "None", []),
        ("payload", "tags", "blue", [0]),
        ("payload", "tags.1", "blue", [0]),
        ("payload", "tags.0", "blue", []),
        ("payload", "items.sku", "b", [1]),
        ("payload", "items.1.n", "2", [1]),
        ("payload", "deep.a.b.c.d", "x=y&z", [4]),
        ("payload", "0", "zero", [4]),
        ("payload", "empty", "", [4]),
        ("payload", "customer", "42", []),
        ("payload", "%", "%", []),
        ("result", "total", "7", [0]),
        ("result", "rows", "é", [0]),
        ("result", "", "done", [1]),
    ],
)
def test_values_are_found_where_they_are(filled: Store, part: Any, path: str, value: Any, expected: list[int]) -> None:
    search = JobSearch((value_search(part, path, value),))
    found = filled.search.page(JobQuery(search=search))
    assert [job.id for job in found.jobs] == [job_id(n) for n in reversed(expected)]
    assert (found.before, found.scanned) == (None, len(PAYLOADS))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timeouterror", [2]),
        ('"ANSWER"\nfrom', [2]),
        ("名-", [2]),
        ("größe", [3]),
        ("überall", [3]),
        ("secret", []),
        ("message", []),
        ("o", [2, 3]),
    ],
)
def test_error_text_is_found_in_type_and_message(filled: Store, text: str, expected: list[int]) -> None:
    found = filled.search.page(JobQuery(search=JobSearch(error=text)))
    assert [job.id for job in found.jobs] == [job_id(n) for n in reversed(expected)]


def test_pages_end_at_their_limits_and_continue(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job is examined once, whether a page ends with its jobs, with what it may examine, or with its time."""
    record(store, *(submitted(n, payload={"even": n % 2 == 0, "n": n}) for n in range(50)))
    monkeypatch.setattr(job_search, "FIRST_CHUNK", 3)
    wanted = JobSearch((value_search("payload", "even", True),))
    for name, value in (("MOST_SCANNED", 20_000), ("MOST_SCANNED", 7), ("LONGEST", 0.0)):
        monkeypatch.setattr(job_search, name, value)
        before, found, scanned, pages = None, [], 0, 0
        while pages == 0 or before is not None:
            page = store.search.page(JobQuery(search=wanted, limit=4, before=before))
            before, pages, scanned = page.before, pages + 1, scanned + page.scanned
            found += [job.id for job in page.jobs]
        assert found == [job_id(n) for n in range(48, -1, -2)]
        assert scanned == 50
        assert pages > 6


def test_count_has_no_limit_of_one_statement(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_search, "COUNTED_AT_ONCE", 4)
    record(store, *(submitted(n, queue=("main", "slow")[n % 2]) for n in range(16)))
    assert store.search.count(JobQuery(limit=1)) == 16
    assert store.search.count(JobQuery(queues=["slow"], before=job_id(11))) == 5


@pytest.mark.parametrize("path", ["", ".a", "a..b", "a.", ".".join("a" * 17), "a" * 201, "\x00"])
def test_bad_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="payload"):
        value_search("payload", path, "x")
