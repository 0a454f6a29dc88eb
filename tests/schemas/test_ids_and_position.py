"""Job ids contain their time, event ids identify a fact, and cursors identify a position."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import RFC_4122, UUID

import pytest
import uuid_utils
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas import cursor as position
from jobtape.schemas import ids
from tests.schemas.events_of_a_job import JOB

moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@given(moments, st.integers(0, 2**74 - 1))
def test_first_id_is_smallest_of_its_millisecond(time: datetime, chance: int) -> None:
    """``chance``: the 74 random bits of RFC 9562."""
    first = ids.first_id_at(time)
    made = str(UUID(int=UUID(first).int | (chance >> 62) << 64 | chance & (2**62 - 1)))
    assert first <= made < ids.first_id_at(time + timedelta(milliseconds=1))
    assert ids.time_of(first) == ids.time_of(made) == time.replace(microsecond=time.microsecond // 1000 * 1000)
    assert ids.parse_job_id(first) == first
    assert (UUID(made).version, UUID(made).variant) == (7, RFC_4122)


@given(moments, moments)
def test_first_ids_are_ordered_by_time(one: datetime, two: datetime) -> None:
    if one <= two:
        assert ids.first_id_at(one) <= ids.first_id_at(two)


def test_first_id_before_epoch_and_in_other_zones() -> None:
    assert ids.first_id_at(datetime(1900, 1, 1, tzinfo=UTC)) == ids.first_id_at(datetime(1970, 1, 1, tzinfo=UTC))
    east = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert ids.first_id_at(east) == ids.first_id_at(datetime(2026, 1, 1, tzinfo=UTC))


def test_time_of_new_id_is_now() -> None:
    before = datetime.now(UTC)
    made = str(uuid_utils.uuid7())
    after = datetime.now(UTC) + timedelta(milliseconds=1)
    assert ids.first_id_at(before) <= made < ids.first_id_at(after)


@pytest.mark.parametrize(
    "job_id",
    [
        "00000000-0000-0000-0000-000000000000",
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
    ],
)
def test_time_of_other_uuid_is_none(job_id: str) -> None:
    assert ids.time_of(job_id) is None


@pytest.mark.parametrize(
    "text",
    ["", "x", JOB[:-1], JOB + "0", JOB + "\n", " " + JOB, JOB.replace("-", ""), "{" + JOB + "}", "\x00" + JOB[1:]],
)
def test_invalid_job_id_is_none(text: str) -> None:
    assert ids.parse_job_id(text) is None


@given(st.text(st.characters(exclude_categories=[])))
def test_parse_job_id_takes_any_text(text: str) -> None:
    ids.parse_job_id(text)


def test_upper_case_id_is_lowered() -> None:
    assert ids.parse_job_id(JOB.upper()) == JOB


def test_event_ids_differ_for_each_fact() -> None:
    facts = [
        ids.run_event_id(JOB, run, event) for run in (1, 11) for event in ("submitted", "cancelled")
    ] + [
        ids.attempt_event_id(JOB, run, attempt, "progressed", execution, n)
        for run in (1, 11) for attempt in (1, 11) for execution in ("a", "b") for n in (None, 1, 11)
    ]  # fmt: skip
    assert len(set(facts)) == len(facts)


@given(st.integers(1, 2**15 - 1), st.integers(0, 2**48 - 1), st.integers(1, 2**15 - 1), st.integers(0, 2**48 - 1))
def test_cursors_are_ordered_by_epoch_and_offset(epoch: int, offset: int, epoch2: int, offset2: int) -> None:
    cursor, cursor2 = position.cursor_of(epoch, offset), position.cursor_of(epoch2, offset2)
    assert (cursor >> position.EPOCH_BITS, position.offset_of(cursor)) == (epoch, offset)
    assert (cursor < cursor2) == ((epoch, offset) < (epoch2, offset2))
    assert 0 < cursor <= position.MAX_CURSOR
