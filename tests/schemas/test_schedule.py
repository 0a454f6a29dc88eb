"""Ticks of schedules: zones, changes of the clock, and which ticks are submitted late."""

from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobtape.schemas import ids
from jobtape.schemas.job import Order
from jobtape.schemas.rules.schedule import MOST_CAUGHT_UP, ON_TIME, Schedule, Ticks

ORDER = Order(type="report", payload={}, queue="default", timeout=60)
DAY = datetime(2026, 6, 1, tzinfo=UTC)


def plain(**values: Any) -> Schedule:
    return Schedule(name="report", order=ORDER, **values)


def local(ticks: Schedule, since: str, n: int) -> list[str]:
    """Return the first n ticks after a local time, in local time with the offset."""
    zone = ZoneInfo(ticks.tz)
    after = datetime.fromisoformat(since).replace(tzinfo=zone).astimezone(UTC)
    return [tick.astimezone(zone).isoformat(timespec="minutes") for tick in islice(ticks.after(after), n)]


# Checked by hand against the IANA database. In 2026 clocks change in Berlin on 29 March and 25 October, in New York on
# 8 March and 1 November, on Lord Howe Island (by half an hour) on 5 April and 4 October, in Santiago on 5 April and
# 6 September (at midnight).
CHANGES = {
    "Berlin, spring: 02:30 does not exist": (
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00"),
        ["2026-03-28T02:30+01:00", "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"],
    ),
    "Berlin, autumn: 02:30 exists twice": (
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T00:00"),
        ["2026-10-24T02:30+02:00", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"],
    ),
    "Berlin, autumn: each hour that passes": (
        ("0 * * * *", "Europe/Berlin", "2026-10-25T00:30"),
        ["2026-10-25T01:00+02:00", "2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"],
    ),
    "Berlin, spring: a list of minutes in an hour that does not exist": (
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28T00:00"),
        ["2026-03-28T02:00+01:00", "2026-03-28T02:30+01:00", "2026-03-30T02:00+02:00"],
    ),
    "New York, spring": (
        ("30 2 * * *", "America/New_York", "2026-03-07T00:00"),
        ["2026-03-07T02:30-05:00", "2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"],
    ),
    "New York, autumn": (
        ("30 1 * * *", "America/New_York", "2026-10-31T00:00"),
        ["2026-10-31T01:30-04:00", "2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"],
    ),
    "Lord Howe, autumn: 01:45 exists twice": (
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00"),
        ["2026-04-04T01:45+11:00", "2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"],
    ),
    "Lord Howe, spring: 02:15 does not exist": (
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00"),
        ["2026-10-03T02:15+10:30", "2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"],
    ),
    "Santiago, spring: midnight does not exist": (
        ("0 0 * * *", "America/Santiago", "2026-09-05T00:00"),
        ["2026-09-06T01:00-03:00", "2026-09-07T00:00-03:00"],
    ),
    "Santiago, autumn: 23:30 exists twice": (
        ("30 23 * * *", "America/Santiago", "2026-04-03T12:00"),
        ["2026-04-03T23:30-03:00", "2026-04-04T23:30-03:00", "2026-04-05T23:30-04:00"],
    ),
    "working days": (
        ("0 9 * * MON-FRI", "Europe/Berlin", "2026-06-05T08:00"),
        ["2026-06-05T09:00+02:00", "2026-06-08T09:00+02:00"],
    ),
}


@pytest.mark.parametrize("case", CHANGES, ids=str)
def test_cron_follows_the_local_clock(case: str) -> None:
    (cron, zone, since), expected = CHANGES[case]
    assert local(plain(cron=cron, tz=zone), since, len(expected)) == expected


ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"]


def wall_clock_instant(day: date, hour: int, minute: int, zone: ZoneInfo) -> datetime:
    """Return when clocks in the zone show a time on a day: the first time, or the end of the hour that they skip."""
    local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
    instant = local.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return instant
    offset = instant.astimezone(zone).utcoffset()
    while (instant - timedelta(minutes=1)).astimezone(zone).utcoffset() == offset:
        instant -= timedelta(minutes=1)
    return instant


@pytest.mark.parametrize("zone", ZONES)
def test_daily_job_has_the_ticks_of_an_independent_table_on_each_day_of_2026(zone: str) -> None:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(365)]
    begin = datetime(2025, 12, 31, 23, 59, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    for hour, minute in [(0, 0), (0, 30), (1, 30), (1, 45), (2, 0), (2, 15), (2, 30), (3, 0), (12, 0), (23, 30)]:
        ticks = islice(plain(cron=f"{minute} {hour} * * *", tz=zone).after(begin), len(days))
        assert list(ticks) == [wall_clock_instant(day, hour, minute, ZoneInfo(zone)) for day in days], (hour, minute)


@pytest.mark.parametrize("zone", ZONES)
def test_frequent_job_runs_as_time_passes_also_when_clocks_change(zone: str) -> None:
    ticks = list(islice(plain(cron="*/30 * * * *", tz=zone).after(datetime(2026, 3, 1, tzinfo=UTC)), 250 * 48))
    assert {b - a for a, b in pairwise(ticks)} == {timedelta(minutes=30)}


@given(st.floats(1, 1e6), st.integers(0, 10**9))
def test_intervals_are_even_and_the_same_for_everybody(every: float, seconds: int) -> None:
    ticks = plain(every=every)
    start = datetime.fromtimestamp(seconds, UTC)
    found = list(islice(ticks.after(start), 5))
    assert found[0] > start
    assert all(abs((b - a).total_seconds() - every) < 0.001 for a, b in pairwise(found))
    assert list(islice(ticks.after(found[1]), 3)) == found[2:]


@given(
    every=st.sampled_from([1.0, 7.0, 60.0, 3600.0]),
    catch_up=st.sampled_from(["last", "none", "all"]),
    window=st.sampled_from([0.0, 60.0, 300.0]),
    pauses=st.lists(st.floats(0.001, 20) | st.floats(20, 900), max_size=8),
)
def test_each_tick_is_due_once_and_missed_ones_by_the_policy(
    every: float, catch_up: Any, window: float, pauses: list[float]
) -> None:
    ticks = plain(every=every, catch_up=catch_up, window=window)
    latest, now = DAY, DAY
    found: list[datetime] = []
    for pause in pauses:
        before, now = now, now + timedelta(seconds=pause)
        due = ticks.due(latest, now)
        between = [tick for tick in islice(ticks.after(before), 1000) if tick <= now]
        on_time = [tick for tick in between if tick > now - timedelta(seconds=ON_TIME)]
        missed = [t for t in between if now - timedelta(seconds=window) < t <= now - timedelta(seconds=ON_TIME)]
        if catch_up == "all":
            assert due == (missed + on_time)[-max(MOST_CAUGHT_UP, len(on_time)) :]
        else:
            assert due == on_time or (catch_up == "last" and not on_time and due == missed[-1:])
        found += due
        latest = max([latest, *due])
    assert len(set(found)) == len(found)
    assert found == sorted(found)


def test_clock_that_is_set_back_repeats_no_tick() -> None:
    ticks = plain(every=60)
    assert ticks.due(DAY, DAY - timedelta(hours=1)) == []
    assert ticks.due(DAY, DAY + timedelta(seconds=60)) == [DAY + timedelta(seconds=60)]


def test_start_and_end_bound_the_ticks() -> None:
    ticks = plain(every=60, start=DAY, end=DAY + timedelta(seconds=120))
    assert list(ticks.after(DAY - timedelta(days=1))) == [DAY, DAY + timedelta(seconds=60)]


def test_job_of_a_tick_has_the_same_id_whoever_submits_it() -> None:
    schedule = Schedule(name="report", every=60, order=ORDER)
    found = {schedule.job_id(tick) for tick in islice(schedule.after(DAY), 100)}
    assert len(found) == 100
    assert all(ids.parse_job_id(each) for each in found)
    assert ids.time_of(schedule.job_id(DAY)) == DAY
    assert schedule.job_id(DAY) == Schedule(name="report", cron="* * * * *", order=ORDER).job_id(DAY)
    assert schedule.job_id(DAY) != Schedule(name="other", every=60, order=ORDER).job_id(DAY)


def test_spread_moves_all_ticks_by_the_same_time_that_the_name_decides() -> None:
    plain = Schedule(name="a", every=3600, order=ORDER)
    moved: set[timedelta] = set()
    for name in map(str, range(50)):
        schedule = Schedule(name=name, every=3600, spread=600, order=ORDER)
        since = DAY + timedelta(minutes=30)
        differences = {b - a for a, b in zip(plain.after(since), islice(schedule.after(since), 5), strict=False)}
        assert len(differences) == 1
        moved |= differences
        tick = next(schedule.after(since))
        assert schedule.due(tick - timedelta(seconds=1), tick) == [tick]
        assert ids.time_of(schedule.job_id(tick)) == tick, "job ids have milliseconds"
    assert len(moved) > 40
    assert all(timedelta(0) <= each <= timedelta(seconds=600) for each in moved)


def test_spread_ticks_keep_start_and_end() -> None:
    for name in map(str, range(20)):
        end = DAY + timedelta(minutes=3)
        ticks = Schedule(name=name, every=60, spread=60, start=DAY, end=end, order=ORDER)
        found = list(ticks.after(DAY - timedelta(days=1)))
        assert len(found) == 3
        assert all(DAY <= each < end for each in found)


@pytest.mark.parametrize(
    ("zone", "days"),
    [
        ("Europe/Berlin", {"2026-03-29", "2026-10-25"}),
        ("America/New_York", {"2026-03-08", "2026-11-01"}),
        ("Australia/Lord_Howe", {"2026-04-05", "2026-10-04"}),
        ("America/Santiago", {"2026-04-04", "2026-09-06"}),
        ("UTC", set()),
    ],
)
def test_days_on_which_clocks_change_are_known(zone: str, days: set[str]) -> None:
    ticks = Ticks(every=60, tz=zone)
    year = [date(2026, 1, 1) + timedelta(days=n) for n in range(365)]
    assert {day.isoformat() for day in year if ticks.changes_clock(day)} == days


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "either cron or every"),
        ({"cron": "* * * * *", "every": 5}, "either cron or every"),
        ({"cron": "61 * * * *"}, "is no cron expression: Bad minute"),
        ({"cron": "0 9 * * *", "tz": "Europe/Berlyn"}, "there is no time zone 'Europe/Berlyn'"),
        ({"cron": "0 9 * * *", "tz": "../etc/passwd"}, "there is no time zone"),
        ({"every": 0.5}, "greater than or equal to 1"),
    ],
)
def test_wrong_schedule_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Ticks(**values)
