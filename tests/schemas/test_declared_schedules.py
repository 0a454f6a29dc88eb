"""Schedules that ``@job`` declares."""

from collections.abc import Callable
from typing import Any

import pytest

from jobtape import Cron, Every, job
from jobtape.schemas.errors import JobTypeInvalid


def report(region: str = "all") -> None:
    """Do nothing."""


def test_job_type_has_its_schedules() -> None:
    declared = job(
        "report", schedule=[Cron("0 9 * * MON-FRI", tz="Europe/Berlin"), Every(minutes=5, seconds=1, name="often")]
    )(report)
    first, second = declared.schedules
    assert (first.name, first.ticks.cron, first.ticks.tz, first.payload) == (
        "report",
        "0 9 * * MON-FRI",
        "Europe/Berlin",
        {},
    )
    assert (second.name, second.ticks.every) == ("often", 301)
    assert job("report")(report).schedules == ()
    assert job("report", schedule=Every(days=1, payload={"region": "eu"}))(report).schedules[0].payload == {
        "region": "eu"
    }


def needs(region: str) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("function", "schedule", "message"),
    [
        (report, Cron("0 25 * * *"), "the schedule 'report': cron: '0 25 \\* \\* \\*' is no cron expression: Bad hour"),
        (report, Cron("0 2 * * *", tz="Europe/Berlyn"), "there is no time zone 'Europe/Berlyn'"),
        (report, Every(), "every: Input should be greater than or equal to 1"),
        (report, [Every(days=1), Every(days=2)], "two schedules are called 'report'"),
        (report, Every(days=1, name="a b"), "'a b' cannot be the name of a schedule"),
        (report, "0 9 * * *", "schedule is Cron"),
        (needs, Every(days=1), r"region: Field required; give the arguments as Every\(\.\.\., payload="),
    ],
)
def test_wrong_schedule_is_refused_at_the_decorator(function: Callable[..., Any], schedule: Any, message: str) -> None:
    with pytest.raises(JobTypeInvalid, match=rf"test_declared_schedules.*{message}"):
        job("report", schedule=schedule)(function)
