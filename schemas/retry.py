"""Decides whether and when another attempt follows a failed one."""

from dataclasses import dataclass
from typing import Final, Literal

from jobtape.schemas.job import LONGEST_DELAY

Wish = Literal["policy", "never"] | float
"""The next attempt as the failure wants it: by the policy, never, or after this number of seconds."""

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
    """How often and how soon a job is tried again. Times are in seconds.

    The pause after the n-th failure is ``first * factor ** (n - 1)``, at most ``longest``, minus a random part of up to
    the fraction ``jitter``, so that jobs that failed together are not tried again together. ``on``: the exceptions that
    lead to another attempt, compared as in an ``except`` clause; ``TimeoutError`` includes time-outs of the job, and
    ``Crashed`` is a crash of the handler's process. Raises ValueError for invalid values.
    """

    max_attempts: int = 1
    first: float = 1.0
    factor: float = 2.0
    longest: float = 3600.0
    jitter: float = 0.25
    on: tuple[type[BaseException], ...] = (Exception,)

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

    def wish(self, error: BaseException) -> Wish:
        """What the exception of a failed attempt wants for the next one."""
        match error:
            case Fail():
                return NEVER
            case Retry(delay=delay):
                return POLICY if delay is None else delay
        # As in an ``except`` clause: ``isinstance`` would call methods of the users' classes.
        return POLICY if any(type.__subclasscheck__(kind, type(error)) for kind in self.on) else NEVER


def next_delay(policy: RetryPolicy, *, attempt: int, max_attempts: int, wish: Wish, chance: float) -> float | None:
    """Seconds until the attempt after the failed ``attempt``, or None when there is none.

    ``chance``: a random number from 0 to 1 for the jitter.
    """
    if wish == NEVER or attempt >= max_attempts:
        return None
    if isinstance(wish, float | int):
        return float(wish)
    try:
        pause = policy.first * policy.factor ** (attempt - 1)
    except OverflowError:
        pause = policy.longest
    return min(pause, policy.longest) * (1 - policy.jitter * chance)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)
