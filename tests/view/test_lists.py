"""Lists have all jobs that fit the query, the newest first, in pages that neither skip nor repeat a job."""

from datetime import timedelta
from typing import Any

import pytest

from jobtape.schemas.job import Job, JobState
from jobtape.view.projection import LABEL_LIMIT
from jobtape.view.store import JobQuery, Store
from tests.view.samples import NOON, job_id, record, submitted, succeeded

COUNT = 60


@pytest.fixture
def known(store: Store) -> list[Job]:
    """Jobs of two types, three queues and some labels, five per second, each third one succeeded; newest first."""
    tape: list[Any] = []
    for n in range(COUNT):
        labels = {"tenant": f"t{n % 4}", "colour": "red" if n % 2 else "blue"}
        order = submitted(
            n,
            at=NOON + timedelta(seconds=n // 5),
            type=("add", "mail")[n % 2],
            queue=("main", "slow", "fast")[n % 3],
            labels=labels if n % 5 else {},
        )
        tape += [order, succeeded(order)] if n % 3 == 0 else [order]
    return sorted(record(store, *tape).jobs, key=lambda job: job.id, reverse=True)


def pages(store: Store, limit: int, **query: Any) -> list[Job]:
    """Return the jobs of all pages."""
    found: list[Job] = []
    before = None
    while page := store.list_jobs(JobQuery(limit=limit, before=before, **query)):
        assert len(page) <= limit
        found += page
        before = page[-1].id
    return found


FILTERS: list[dict[str, Any]] = [
    {},
    {"types": ["mail"]},
    {"types": ["mail", "add"]},
    {"states": [JobState.SUCCEEDED]},
    {"states": [JobState.SUCCEEDED, JobState.QUEUED], "queues": ["main", "fast"]},
    {"labels": [("tenant", "t1")]},
    {"labels": [("tenant", "t1"), ("colour", "red")], "types": ["mail"]},
    {"labels": [("tenant", "t1"), ("colour", "blue")]},
    {"labels": [("tenant", "t1"), ("tenant", "t2")]},
    {"types": ["nothing"]},
    {"since": NOON + timedelta(seconds=3)},
    {"until": NOON + timedelta(seconds=3)},
    {"since": NOON + timedelta(seconds=2), "until": NOON + timedelta(seconds=5), "queues": ["slow"]},
]


@pytest.mark.parametrize("query", FILTERS, ids=str)
def test_pages_have_all_jobs_that_fit_query(store: Store, known: list[Job], query: dict[str, Any]) -> None:
    def fits(job: Job) -> bool:
        labels = job.labels or {}
        assert job.submitted_at is not None
        return (
            ("types" not in query or job.type in query["types"])
            and ("states" not in query or job.state in query["states"])
            and ("queues" not in query or job.queue in query["queues"])
            and all(labels.get(name) == value for name, value in query.get("labels", ()))
            and ("since" not in query or job.submitted_at >= query["since"])
            and ("until" not in query or job.submitted_at < query["until"])
        )

    expected = [job for job in known if fits(job)]
    assert pages(store, 7, **query) == expected
    assert store.list_jobs(JobQuery(**query)) == expected


def test_label_too_long_for_index_is_kept_in_job_only(store: Store) -> None:
    fitting, too_long = "ä" * LABEL_LIMIT, "ä" * 5000
    record(store, submitted(1, labels={fitting: fitting, "long": too_long, too_long: "long"}))
    found = store.list_jobs(JobQuery(labels=[(fitting, fitting)]))
    assert [job.id for job in found] == [job_id(1)]
    assert found[0].labels == {fitting: fitting, "long": too_long, too_long: "long"}
    assert store.list_jobs(JobQuery(labels=[("long", too_long)])) == []
