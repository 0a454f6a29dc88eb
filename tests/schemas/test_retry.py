"""Whether a failed attempt is followed by another, and when."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas.execution.retry import NEVER, POLICY, Fail, Retry, RetryAfter, RetryPolicy, next_delay
from jobtape.schemas.job import LONGEST_DELAY

DOUBLING = RetryPolicy(max_attempts=5, first=1, factor=2, longest=10, jitter=0)
policies = st.builds(
    lambda first, longest, factor, jitter: RetryPolicy(
        max_attempts=1000, first=min(first, longest), factor=factor, longest=longest, jitter=jitter
    ),
    st.floats(0, LONGEST_DELAY) | st.integers(0, int(LONGEST_DELAY)),
    st.floats(0, LONGEST_DELAY),
    st.floats(1, 100) | st.integers(1, 100),
    st.floats(0, 1),
)
chances = st.floats(0, 1)

DECISIONS: list[tuple[str, RetryPolicy, int, int, RetryAfter, float | None]] = [
    # what, policy, the attempt that failed, max_attempts of the job, the next attempt, seconds until it
    ("the first failure", DOUBLING, 1, 5, POLICY, 1),
    ("the second", DOUBLING, 2, 5, POLICY, 2),
    ("the fourth", DOUBLING, 4, 5, POLICY, 8),
    ("capped", DOUBLING, 5, 9, POLICY, 10),
    ("capped, far beyond any number", DOUBLING, 999, 1000, POLICY, 10),
    ("that was the last", DOUBLING, 5, 5, POLICY, None),
    ("beyond the last: the job's limit was lowered", DOUBLING, 7, 5, POLICY, None),
    ("the job allows more than its type", DOUBLING, 5, 6, POLICY, 10),
    ("the job allows less", DOUBLING, 2, 2, POLICY, None),
    ("one attempt only", RetryPolicy(), 1, 1, POLICY, None),
    ("at once", RetryPolicy(max_attempts=3, first=0), 2, 3, POLICY, 0),
    ("always the same pause", RetryPolicy(max_attempts=9, first=3, factor=1, jitter=0), 8, 9, POLICY, 3),
    ("never", DOUBLING, 1, 5, NEVER, None),
    ("the handler's delay", DOUBLING, 1, 5, 77.5, 77.5),
    ("the handler's delay is not capped by the policy", DOUBLING, 1, 5, LONGEST_DELAY, LONGEST_DELAY),
    ("the handler's delay of nothing", DOUBLING, 1, 5, 0, 0),
    ("the handler's delay, and that was the last", DOUBLING, 5, 5, 1.0, None),
]


@pytest.mark.parametrize(
    ("policy", "attempt", "most", "retry_after", "expected"),
    [each[1:] for each in DECISIONS],
    ids=[each[0] for each in DECISIONS],
)
def test_next_delay(
    policy: RetryPolicy, attempt: int, most: int, retry_after: RetryAfter, expected: float | None
) -> None:
    delays = {
        next_delay(policy, attempt=attempt, max_attempts=most, retry_after=retry_after, randomness=randomness)
        for randomness in (0.0, 1.0)
    }
    jittered = expected is not None and retry_after == POLICY and policy.jitter
    assert delays == ({expected, expected * (1 - policy.jitter)} if jittered else {expected})  # type: ignore[operator]


@given(policies, st.integers(1, 999), chances)
def test_pause_is_within_jitter_and_limit(policy: RetryPolicy, attempt: int, randomness: float) -> None:
    longest = next_delay(policy, attempt=attempt, max_attempts=1000, retry_after=POLICY, randomness=0)
    pause = next_delay(policy, attempt=attempt, max_attempts=1000, retry_after=POLICY, randomness=randomness)
    assert longest is not None and pause is not None
    assert 0 <= longest * (1 - policy.jitter) <= pause <= longest <= policy.longest <= LONGEST_DELAY
    if attempt == 1:
        assert longest == policy.first


@given(policies, st.integers(1, 998), chances)
def test_pauses_grow(policy: RetryPolicy, attempt: int, randomness: float) -> None:
    one, two = (
        next_delay(policy, attempt=n, max_attempts=1000, retry_after=POLICY, randomness=randomness)
        for n in (attempt, attempt + 1)
    )
    assert one is not None and two is not None and one <= two


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [
        (ConnectionError(), POLICY),  # an OSError
        (TimeoutError(), POLICY),  # another; so is a handler that took too long
        (ValueError(), NEVER),
        (SystemExit(), NEVER),
        (Retry(), POLICY),
        (Retry(5), 5),
        (Retry(0), 0),
        (Fail("no such customer"), NEVER),
    ],
)
def test_wish_of_exception(error: BaseException, retry_after: RetryAfter) -> None:
    assert RetryPolicy(max_attempts=3, on=(OSError,)).retry_after(error) == retry_after


def test_default_policy_retries_exceptions_only() -> None:
    policy = RetryPolicy(max_attempts=3)
    assert {policy.retry_after(error) for error in (ValueError(), OSError(), Retry())} == {POLICY}
    assert {policy.retry_after(error) for error in (SystemExit(), KeyboardInterrupt(), Fail())} == {NEVER}


def test_empty_on_retries_only_retry() -> None:
    policy = RetryPolicy(max_attempts=3, on=())
    assert (policy.retry_after(ValueError()), policy.retry_after(Retry()), policy.retry_after(Retry(2.5))) == (
        NEVER,
        POLICY,
        2.5,
    )


def test_subclasses_of_fail_and_retry() -> None:
    class NoSuchCustomer(Fail):
        pass

    class Busy(Retry):
        pass

    assert RetryPolicy(max_attempts=3, on=(NoSuchCustomer,)).retry_after(NoSuchCustomer()) == NEVER
    assert RetryPolicy(max_attempts=3, on=()).retry_after(Busy(4)) == 4


BAD_POLICIES: list[tuple[dict[str, Any], str]] = [
    *[
        ({"max_attempts": value}, "max_attempts is a whole number from 1 to 1000")
        for value in (0, -1, 1001, 2.5, "3", True, None)
    ],
    *[
        ({name: value}, "0 <= first <= longest")
        for name in ("first", "factor", "longest", "jitter")
        for value in (-1, math.nan, math.inf, "1", None, True)
    ],
    ({"first": 10, "longest": 5}, "first=10, longest=5"),
    ({"longest": LONGEST_DELAY + 1}, "ten years"),
    ({"factor": 0.5}, "1 <= factor"),
    ({"factor": 101}, "factor <= 100"),
    ({"jitter": 1.1}, "jitter=1.1"),
    *[
        ({"on": value}, "a tuple of exception classes")
        for value in (ValueError, [ValueError], (ValueError(),), ("ValueError",), None)
    ],
]


@pytest.mark.parametrize(("fields", "said"), BAD_POLICIES, ids=str)
def test_invalid_policy_is_refused(fields: dict[str, Any], said: str) -> None:
    if fields == {"jitter": True} or fields == {"factor": True}:
        said = "jitter"
    with pytest.raises(ValueError, match=said.replace("(", r"\(")) as refused:
        RetryPolicy(**fields)
    assert "not" in str(refused.value)


@pytest.mark.parametrize("delay", [-0.1, LONGEST_DELAY + 1, math.nan, math.inf, "5", True])
def test_invalid_retry_delay_raises_in_handler(delay: Any) -> None:
    with pytest.raises(ValueError, match="0 to 315360000 seconds"):
        Retry(delay)


def test_retry_keeps_message() -> None:
    assert str(Retry(5, "the mail server is busy")) == "the mail server is busy"
    assert str(Retry())
    assert str(Fail("no such customer")) == "no such customer"
