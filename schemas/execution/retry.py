"""Decides whether and when another attempt follows a failed one."""

from dataclasses import dataclass
from typing import Final, Literal

from jobtape.schemas.job import LONGEST_DELAY

RetryAfter = Literal["policy", "never"] | float
"""When the next attempt follows a failure: as the policy says, never, or after this number of seconds."""

NEVER: Final = "never"
POLICY: Final = "policy"
MOST_ATTEMPTS: Final = 1000


class Retry(Exception):
    """Raised by a handler for another attempt, after ``delay`` seconds or as the policy says.

    The failed attempt counts, so ``max_attempts`` still limits the job.
    """

    def __init__(self, delay: float | None = None, message: str = "the handler asked for another attempt") -> None:
        super().__init__(message)
        if delay is not None and not (_is_number(delay) and 0 <= delay <= LONGEST_DELAY):
            raise ValueError(
                f"a retry can be delayed by 0 to {LONGEST_DELAY:.0f} seconds, not {delay!r}: give a number, or None"
            )
        self.delay = delay


class Fail(Exception):
    """Raised by a handler for a job that must not be tried again."""


class Crashed(Exception):
    """Stands in ``RetryPolicy.on`` for the crash of a handler's process. It is never raised."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a job is tried again. Times are in seconds. Raises ValueError for invalid values.

    The pause after the n-th failure is ``first * factor ** (n - 1)``, at most ``longest``, minus a random part.
    """

    max_attempts: int = 1
    """Attempts of one run, the first one included: 1 to 1000."""
    first: float = 1.0
    """Seconds between the first failure and the second attempt."""
    factor: float = 2.0
    """How much longer each pause is than the one before: 1 to 100."""
    longest: float = 3600.0
    """The longest pause."""
    jitter: float = 0.25
    """The largest part of a pause, 0 to 1, by which it is shortened at random, so that jobs that failed together are
    not all tried again at the same time.
    """
    on: tuple[type[BaseException], ...] = (Exception,)
    """The exceptions after which the job is tried again, compared as in an ``except`` clause. ``TimeoutError`` includes
    the timeout of the job. ``Crashed`` is a crash of the handler's process.
    """

    def __post_init__(self) -> None:
        if not (type(self.max_attempts) is int and 1 <= self.max_attempts <= MOST_ATTEMPTS):
            raise ValueError(f"max_attempts is a whole number from 1 to {MOST_ATTEMPTS}, not {self.max_attempts!r}")
        numbers = (self.first, self.factor, self.longest, self.jitter)
        if not (
            all(map(_is_number, numbers))
            and (0 <= self.first <= self.longest <= LONGEST_DELAY and 1 <= self.factor <= 100 and 0 <= self.jitter <= 1)
        ):
            raise ValueError(
                "a retry policy needs 0 <= first <= longest <= ten years (in seconds), 1 <= factor <= 100 and "
                f"0 <= jitter <= 1, not first={self.first!r}, longest={self.longest!r}, factor={self.factor!r}, "
                f"jitter={self.jitter!r}"
            )
        # Checked here, because at a job's failure the worker would fail.
        if not (isinstance(self.on, tuple) and all(map(_is_exception, self.on))):
            raise ValueError(f"on is a tuple of exception classes, like (OSError, TimeoutError), not {self.on!r}")

    def retry_after(self, error: BaseException) -> RetryAfter:
        """Return when the next attempt follows an attempt that failed with ``error``."""
        match error:
            case Fail():
                return NEVER
            case Retry(delay=delay):
                return POLICY if delay is None else delay
        # As in an ``except`` clause: ``isinstance`` would call methods of the users' classes.
        return POLICY if any(type.__subclasscheck__(kind, type(error)) for kind in self.on) else NEVER


def next_delay(
    policy: RetryPolicy, *, attempt: int, max_attempts: int, retry_after: RetryAfter, randomness: float
) -> float | None:
    """Return the seconds until the attempt after the failed ``attempt``, or None when there is none.

    ``randomness``: a number from 0 to 1, for the jitter.
    """
    if retry_after == NEVER or attempt >= max_attempts:
        return None
    if isinstance(retry_after, float | int):
        return float(retry_after)
    try:
        pause = policy.first * policy.factor ** (attempt - 1)
    except OverflowError:
        pause = policy.longest
    return min(pause, policy.longest) * (1 - policy.jitter * randomness)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)
