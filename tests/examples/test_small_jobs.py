"""Tests ``add`` and ``sleep.five``, and that ``examples.jobs`` contains all examples."""

import asyncio
import logging
import time

import pytest

from examples import jobs
from jobtape import Context, JobType, PayloadInvalid
from jobtape.schemas.job import Progress


def test_jobs_module_has_every_example() -> None:
    types = {value.name: value.queue for value in vars(jobs).values() if isinstance(value, JobType)}
    assert types == {
        "add": "default",
        "sleep.five": "default",
        "email.send": "mail",
        "image.thumbnail": "images",
        "csv.profile": "files",
    }


def test_every_example_has_a_docstring() -> None:
    assert all(value.description for value in vars(jobs).values() if isinstance(value, JobType))


def test_add() -> None:
    assert jobs.add(3, 4) == 7
    with pytest.raises(PayloadInvalid):
        jobs.add.arguments({"x": "three", "y": 4})


def test_sleep_reports_progress_after_each_tenth() -> None:
    reports: list[Progress] = []
    ctx = Context("a-job", "sleep.five", 1, 1, logging.getLogger(__name__), reports.append)
    begun = time.monotonic()
    slept = asyncio.run(jobs.sleep_five(ctx, seconds=0.5))
    assert 0.5 <= slept.seconds <= time.monotonic() - begun
    assert [report.fraction for report in reports] == [step / 10 for step in range(1, 11)]


@pytest.mark.parametrize("seconds", [0, -1, 61, "soon"])
def test_sleep_is_limited_to_a_minute(seconds: object) -> None:
    with pytest.raises(PayloadInvalid):
        jobs.sleep_five.arguments({"seconds": seconds})


def test_sleep_takes_five_seconds_by_default() -> None:
    assert jobs.sleep_five.arguments({}) == {"seconds": 5.0}
