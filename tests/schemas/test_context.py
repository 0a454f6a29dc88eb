"""The progress that a handler reports can always be published."""

import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas import plainjson
from jobtape.schemas.execution.context import Context
from jobtape.schemas.job import Progress


def context(delivered: list[Progress], run: int = 1, attempt: int = 1) -> Context:
    return Context("job", "add", run, attempt, logging.getLogger("test"), delivered.append)


@given(st.floats(), st.none() | st.text(st.characters(exclude_categories=[]), max_size=300))
def test_any_fraction_and_message_are_reported(fraction: float, message: str | None) -> None:
    delivered: list[Progress] = []
    context(delivered).progress(fraction, message)
    (progress,) = delivered
    assert 0 <= progress.fraction <= 1
    assert (progress.message is None) == (message is None)
    assert len(progress.message or "") <= 200
    assert plainjson.fault(progress.model_dump()) is None


@pytest.mark.parametrize(("said", "delivered"), [(0.5, 0.5), (-1, 0), (7, 1), (math.nan, 0), (math.inf, 0), (1, 1)])
def test_fraction_is_clamped(said: float, delivered: float) -> None:
    reports: list[Progress] = []
    context(reports).progress(said)
    assert reports == [Progress(fraction=delivered)]


def test_idempotency_key_is_the_same_for_all_attempts_of_run() -> None:
    assert context([], 2, 1).idempotency_key == context([], 2, 3).idempotency_key == "job/2"
    assert context([], 1).idempotency_key != context([], 2).idempotency_key
